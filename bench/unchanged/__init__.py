"""What a simulation gains whose code knows nothing of the sidecar."""
