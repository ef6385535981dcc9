"""Thin adapters that drive engines through what they offer."""
