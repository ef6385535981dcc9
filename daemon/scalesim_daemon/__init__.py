"""The sidecar daemon."""
