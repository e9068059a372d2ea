"""The SQL database, the truth about apps, routes and calls: SQLite or PostgreSQL."""

__all__: list[str] = []
