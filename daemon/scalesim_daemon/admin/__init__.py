"""What operators do with a running daemon, and who may."""
