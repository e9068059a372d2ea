"""Several processes that serve one port as one node: a primary, which is the node, and satellites, which run calls."""

__all__: list[str] = []
