"""What the sidecar costs traffic that it was not told of."""
