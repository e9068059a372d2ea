"""Runs calls in containers: agent, hot pool, formats, executors. Knows no HTTP framework and no database."""

__all__: list[str] = []
