"""The contracts by which a call crosses into a container and back, one a file."""

__all__: list[str] = []
