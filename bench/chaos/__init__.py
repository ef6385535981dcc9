"""Random faults over the real daemon, with everything around it as real as it can be had: `python -m bench.chaos`."""
