"""The command line, one noun a file; a client of the public API."""

__all__: list[str] = []
