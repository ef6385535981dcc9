"""The page of results, written from the figures that the benchmarks leave: `make results`."""
