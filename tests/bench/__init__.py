"""Benchmarks: ratios measured in one run, against nginx on the same function socket; see `__main__`."""
