"""How `scalesimctl` shows the daemon's answers to people."""
