"""The benchmark: our prober beside its peers in one run (`make bench`); docs/explanation/performance.md.

Every part alternates between its variants, so that a slow minute of the machine falls on all alike, and
compares them round by round. Nothing here is a test: `make test` times nothing.
"""
