"""Functions in containers for the tests, and the builder of their images."""
