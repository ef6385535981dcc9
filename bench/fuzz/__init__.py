"""Nonsense for everything that reads what others wrote: `python -m bench.fuzz`."""
