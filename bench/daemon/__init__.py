"""What the daemon's own work costs: each figure is a ratio to a bare loop in the same run."""
