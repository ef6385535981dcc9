"""The page at `/`: what the daemon knows and does, live, for people. `assets` is served as it lies there."""
