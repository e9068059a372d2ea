"""Who is asking."""

__all__: list[str] = []
