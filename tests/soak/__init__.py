"""A very long run of a real node: after a million calls it holds what it held after the first hundred thousand."""
