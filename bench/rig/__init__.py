"""Real engines on this machine: their environments, models and processes, for tests and the demo."""
