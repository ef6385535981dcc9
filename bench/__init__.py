"""Benchmarks, the demo, and the rig that starts real engines for them."""
