"""One HTTP/1.1 client for everything that speaks HTTP on the hot path."""

__all__: list[str] = []
