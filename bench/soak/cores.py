"""What each process of a soak takes of the machine's cores, and how long the daemon's loop waits for one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from time import monotonic


class Cores:
    """Looks at processes, by their names, from now on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._began = monotonic()
        self._used = {name: cpu_seconds(pid) for name, pid in pids.items()}
        self._waited = {name: waited_seconds(pid) for name, pid in pids.items()}

    def used(self) -> dict[str, float]:
        """Return how many cores each process has used on average."""
        passed = monotonic() - self._began
        return {
            name: round((cpu_seconds(pid) - self._used[name]) / passed, 2) for name, pid in self._pids.items()
        }

    def waited(self, name: str) -> float:
        """Return the share of the time in which a process's first thread could have run and had no core."""
        return round((waited_seconds(self._pids[name]) - self._waited[name]) / (monotonic() - self._began), 3)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used: fields 14 and 15 of its stat, in ticks (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waited_seconds(pid: int) -> float:
    """Return for how long a process's first thread could have run and had no core: the second field of its schedstat,
    in ns (sched-stats in the kernel's documentation)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
