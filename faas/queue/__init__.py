"""Which call runs next and who holds it: one Protocol, in SQL or in Redis."""

__all__: list[str] = []
