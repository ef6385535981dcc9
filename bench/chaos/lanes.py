"""Schedules side by side, each lane a process with mounts and ports of its own; or one after the other beside a real
engine."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import multiprocessing
import shutil
import signal
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from types import FrameType

import msgspec

from bench.chaos.disks import own_mounts
from bench.chaos.engines import EMULATOR, build
from bench.chaos.run import Outcome, not_played, run
from bench.chaos.schedule import Schedule
from bench.rig.process import keep_to_ports

PR_SET_PDEATHSIG = 1


def play_emulated(schedules: Sequence[Schedule], at_once: int) -> Iterator[Outcome]:
    """Play schedules side by side, each beside an emulated engine of its own; yield each outcome as it comes."""
    left = iter(schedules)
    playing: dict[Future[Outcome], Schedule] = {}
    with lanes(at_once) as pool:
        while True:
            # What waits in the pool's own queue would still be played after an interrupt.
            while len(playing) < at_once and (schedule := next(left, None)) is not None:
                playing[pool.submit(_run_emulated, schedule)] = schedule
            if not playing:
                return
            for done in wait(playing, return_when=FIRST_COMPLETED).done:
                schedule, error = playing.pop(done), done.exception()
                if error is not None:
                    traceback.print_exception(error)
                yield done.result() if error is None else not_played(schedule, error)


def play_real(schedules: Sequence[Schedule]) -> Iterator[Outcome]:
    """Play schedules beside one real engine, one after the other; it is started anew where it has ended."""
    mounted = _mounts()
    with tempfile.TemporaryDirectory(prefix="sscr-", ignore_cleanup_errors=True) as root:
        engine = build(schedules[0].engine, Path(root))
        with engine.server:
            for schedule in schedules:
                with _folder(schedule) as folder:
                    outcome = asyncio.run(run(schedule, engine, folder, mounted=mounted))
                    shutil.copy(engine.server.log, folder)
                    yield _with_logs(outcome, schedule, folder)
                if not engine.server.healthy():
                    engine.server.restart()


@contextmanager
def lanes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Have so many processes; whatever way this one ends, they end what they play, clean up, and end."""
    context = multiprocessing.get_context("spawn")
    numbers: SimpleQueue[int] = context.SimpleQueue()
    for number in range(count):
        numbers.put(number)
    with ProcessPoolExecutor(count, context, _enter, (numbers, count)) as pool:
        try:
            yield pool
        except BaseException:
            for lane in multiprocessing.active_children():
                lane.terminate()
            raise


def _enter(numbers: SimpleQueue[int], count: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    heed_signals()
    keep_to_ports(numbers.get(), count)


def heed_signals() -> None:
    """Let SIGINT and SIGTERM end this process in good order: the first of them, since a second would end the ending."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run_emulated(schedule: Schedule) -> Outcome:
    # The engine sees what is mounted later, if it is a child of whoever mounts.
    mounted = _mounts()
    with _folder(schedule) as folder:
        engine = build(EMULATOR, folder)
        with engine.server:
            outcome = asyncio.run(run(schedule, engine, folder, mounted=mounted))
        return _with_logs(outcome, schedule, folder)


@contextmanager
def _folder(schedule: Schedule) -> Iterator[Path]:
    """A short one, as sockets' paths must be; gone at the end."""
    with tempfile.TemporaryDirectory(prefix=f"ssc{schedule.seed}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _with_logs(outcome: Outcome, schedule: Schedule, folder: Path) -> Outcome:
    """Keep what the daemon and the engine said where something was found."""
    if outcome.clean:
        return outcome
    kept = Path("out/chaos") / f"{schedule.engine}-{schedule.seed}"
    kept.mkdir(parents=True, exist_ok=True)
    for log in folder.rglob("*.log"):
        shutil.copy(log, kept / log.name)
    return msgspec.structs.replace(outcome, logs=str(kept))


@functools.cache
def _mounts() -> bool:
    """Once a process: its mounts are its own from then on."""
    return own_mounts() is None
