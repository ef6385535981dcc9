"""Workloads: simulations whose agents call an engine."""
