"""What would happen if: the daemon's estimators and planner beside an engine that is only a model of its costs."""
