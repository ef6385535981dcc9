"""Run one command and end all of its processes when it ends or when whoever started the warden is gone.

`python -m bench.rig.warden COMMAND...` with a pipe as standard input that nobody writes to. An engine is
several processes, and those deep down outlive a killed parent. When the pipe closes, which no way of dying
can prevent, or the command ends, the warden kills and reaps what is left of the command, then ends itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Start the command, end it on SIGTERM and SIGINT, and leave nothing of it behind."""
    # Processes whose parent dies become our children, so that none escapes.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    command: subprocess.Popen[bytes] | None = None
    told = False

    def forward(_signal: int, _frame: FrameType | None) -> None:
        nonlocal told
        told = True
        if command is not None:
            command.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    if told:
        command.terminate()
    select.select([os.pidfd_open(command.pid), sys.stdin], [], [])
    end_children()


def end_children() -> None:
    """Kill and reap our children, and theirs as they become ours, until none is left."""
    listing = Path(f"/proc/self/task/{os.getpid()}/children")
    while True:
        for pid in listing.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
