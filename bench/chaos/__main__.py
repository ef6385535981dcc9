"""`python -m bench.chaos`: random faults over the real daemon, a real Valkey, real publishers, and an engine.

Each schedule is drawn from its seed: `--seed 7 --schedules 1` plays that one again. A simulation plays beside it, and
calls the engine itself, or through the gateway; once all is healed the daemon's view must be the engine's truth, and
the daemon must hold no more than before. What was found ends the command with status 1, with the seed, its faults,
and where the logs are. Each outcome is written as it comes; `--resume` goes on where the same command, at the same
commit, was cut off. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.chaos.disks import own_mounts
from bench.chaos.engines import EMULATOR, INSTALLED
from bench.chaos.lanes import heed_signals, lanes, play_emulated, play_real
from bench.chaos.result import FOUND, Record, conditions, figures
from bench.chaos.run import Outcome
from bench.chaos.schedule import NEEDS_MOUNT, NEEDS_SHIM, Kind, Schedule, draw
from bench.chaos.shim import compiled

COMMAND = "python -m bench.chaos"
SLICE, FULL, FULL_REAL = 60, 500, 10
# One that runs alone takes a core for a quarter of its time.
AT_ONCE = 3 * (os.cpu_count() or 1)


def main() -> None:
    """Play with the flags of the command line."""
    heed_signals()
    given = _flags().parse_args()
    skipped = _skipped()
    for kind, why in skipped.items():
        print(f"skipped: {kind}: {why}", file=sys.stderr)
    kinds = [kind for kind in Kind if kind not in skipped and (not given.kinds or kind in given.kinds)]
    record = Record(given.out)
    outcomes: list[Outcome] = []
    for engine in given.engines or (list(INSTALLED) if given.full else [EMULATOR]):
        if not INSTALLED[engine]():
            print(f"skipped: {engine}: not installed (make engine-{engine})", file=sys.stderr)
            continue
        usual = (FULL if engine == EMULATOR else FULL_REAL) if given.full else SLICE
        seeds = range(given.seed, given.seed + (given.schedules or usual))
        at_once = given.at_once if engine == EMULATOR else 1
        kinds_named = f" --kinds {' '.join(sorted(given.kinds))}" if given.kinds else ""
        command = f"{COMMAND} --engines {engine} --seed {given.seed} --schedules {len(seeds)}{kinds_named}"
        played = record.begin(engine, conditions(command, at_once, skipped), resume=given.resume)
        left = [draw(seed, engine, kinds) for seed in seeds if seed not in played]
        last = began = time.monotonic()
        for count, outcome in enumerate(_played(left, at_once), 1):
            now = time.monotonic()
            record.add(outcome, now - last)
            last = now
            minutes = (now - began) / count * (len(left) - count) / 60
            _tell(outcome, f"{len(played) + count}/{len(seeds)}, {minutes:.0f} min left")
        outcomes += record.of(engine)
    print(json.dumps(figures(outcomes)))
    sys.exit(0 if outcomes and all(outcome.clean for outcome in outcomes) else 1)


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "--engines", nargs="+", choices=list(INSTALLED), help="emulator by default; all with --full"
    )
    parser.add_argument("--schedules", type=int, help=f"so many with each engine, {SLICE} by default")
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule")
    parser.add_argument(
        "--full", action="store_true", help=f"{FULL} emulated, {FULL_REAL} with each real engine"
    )
    parser.add_argument("--kinds", nargs="+", choices=[str(kind) for kind in Kind], help="only these faults")
    parser.add_argument(
        "--at-once",
        type=int,
        default=AT_ONCE,
        help="so many emulated ones side by side, three per core by default",
    )
    parser.add_argument("--out", type=Path, help="a file for the outcomes; those of other engines in it stay")
    parser.add_argument(
        "--resume", action="store_true", help="go on with what --out has of this command and commit"
    )
    return parser


def _skipped() -> dict[str, str]:
    """Return the faults that can't be had on this machine, and why."""
    found: dict[str, str] = {}
    if compiled() is None:
        found |= dict.fromkeys(NEEDS_SHIM, "no C compiler")
    # Mounts are a process's own: whether they can be had is tried in one that ends.
    with lanes(1) as pool:
        why = pool.submit(own_mounts).result()
    return found | (dict.fromkeys(NEEDS_MOUNT, why) if why is not None else {})


def _played(schedules: Sequence[Schedule], at_once: int) -> Iterator[Outcome]:
    """Play emulated ones side by side, those with a real engine one after the other; each as it ends."""
    if not schedules:
        return
    if schedules[0].engine == EMULATOR:
        yield from play_emulated(schedules, at_once)
    else:
        yield from play_real(schedules)


def _tell(outcome: Outcome, where: str) -> None:
    """Say in a line how it went, and what was found."""
    faults = ", ".join(
        f"{fault.kind} at {fault.at:.1f} for {fault.seconds:.1f}, felt {fault.felt} times"
        for fault in outcome.faults
    )
    print(
        f"{where}: {outcome.engine} seed {outcome.seed}: {'clean' if outcome.clean else 'FOUND'}; "
        f"{outcome.served}/{outcome.calls} served through the {outcome.through}, {outcome.store} store; "
        f"settled after {outcome.settled_after} s (last: {outcome.waited_for}), {outcome.seconds} s in all; {faults}",
        file=sys.stderr,
        flush=True,
    )
    for what in FOUND:
        for text in getattr(outcome, what):
            print(f"   {what}: {text}", file=sys.stderr)
    if outcome.logs:
        again = f"{COMMAND} --engines {outcome.engine} --seed {outcome.seed} --schedules 1"
        print(f"   logs: {outcome.logs}; again: {again}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
