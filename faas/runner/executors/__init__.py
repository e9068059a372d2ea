"""What runs containers, behind one Protocol (`base`)."""

__all__: list[str] = []
