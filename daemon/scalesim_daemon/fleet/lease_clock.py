"""The clock that leases go by."""

from __future__ import annotations

from time import CLOCK_BOOTTIME, clock_gettime


def now() -> float:
    """Return seconds since the host's start, of a clock that nobody sets, and that goes on while the host sleeps."""
    return clock_gettime(CLOCK_BOOTTIME)
