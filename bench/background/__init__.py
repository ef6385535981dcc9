"""Traffic that no simulation announced, beside one that does: real requests at their recorded times, and their fate."""
