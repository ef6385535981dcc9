"""What the sidecar changes on a real engine without pause, by class of workload and by what it is told."""
