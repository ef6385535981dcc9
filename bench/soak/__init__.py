"""Half an hour of churn beside a real daemon: what grows, what drifts, what is lost: `python -m bench.soak`."""
