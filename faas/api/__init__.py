"""The HTTP surface: control plane on FastAPI, data plane on the HTTP protocol itself."""

__all__: list[str] = []
