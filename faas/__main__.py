"""`python -m faas` is the command `faas`."""

from faas.cli.main import run

if __name__ == "__main__":
    run()
