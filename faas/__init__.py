"""A self-hosted Functions-as-a-Service runtime: container images as functions on plain Docker."""

__all__ = ["__version__"]

__version__ = "0.1.0"
