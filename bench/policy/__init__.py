"""Which policy of eviction misses least when it is known, or not, who calls next: `make bench-policy`."""
