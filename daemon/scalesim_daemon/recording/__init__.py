"""What the daemon hears, in a file, and from the file to a daemon again: a bug report or a benchmark in one piece."""
