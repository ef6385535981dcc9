"""`python -m bench.fleet`: random faults over three real daemons, a real Valkey and two emulated engines, each in a
network namespace of its own.

Each schedule is drawn from its seed: `--seed 7 --schedules 1` plays that one again. Simulations play beside it, and
call the engines themselves; a tap before each engine notes who acts there, when, and under which token. What was found
ends the command with status 1, with the seed, its faults, and where the logs are. The last line is JSON. Where there
can be no namespaces it ends with status 2 and says what to do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import msgspec

from bench.fleet.net import inside, missing
from bench.fleet.result import FOUND, Result, conditions, figures, write
from bench.fleet.run import Outcome
from bench.fleet.schedule import Kind

COMMAND = "python -m bench.fleet"
SLICE, FULL = 15, 200
AT_ONCE = 3
WITHIN = 300.0


def main() -> None:
    """Play with the flags of the command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--schedules", type=int, help=f"{SLICE} by default, {FULL} with --full")
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--kinds", nargs="+", choices=[str(kind) for kind in Kind], help="only these faults")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="so many side by side")
    parser.add_argument("--out", type=Path, help="a file for the outcomes")
    given = parser.parse_args()
    try:
        skipped = missing()
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    for kind, why in skipped.items():
        print(f"skipped: {kind}: {why}", file=sys.stderr)
    kinds = [kind for kind in Kind if kind not in skipped and (not given.kinds or kind in given.kinds)]
    seeds = range(given.seed, given.seed + (given.schedules or (FULL if given.full else SLICE)))
    began = time.monotonic()
    outcomes: list[Outcome] = []
    for outcome in play(seeds, kinds, given.at_once):
        outcomes.append(outcome)
        _tell(outcome, len(outcomes))
    if given.out is not None:
        command = f"{COMMAND} --seed {given.seed} --schedules {len(seeds)} --at-once {given.at_once}"
        held = conditions(command, time.monotonic() - began, skipped)
        write(given.out, Result(held, sorted(outcomes, key=lambda outcome: outcome.seed)))
    print(json.dumps(figures(outcomes)))
    sys.exit(0 if outcomes and all(outcome.clean for outcome in outcomes) else 1)


def play(seeds: Sequence[int], kinds: Sequence[Kind], at_once: int) -> Iterator[Outcome]:
    """Play schedules side by side, each in namespaces of its own; yield each outcome as it comes. Raises
    `subprocess.SubprocessError` where one could not be played."""
    with ThreadPoolExecutor(at_once) as pool:
        playing = [pool.submit(_play, seed, kinds) for seed in seeds]
        try:
            for done in as_completed(playing):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _play(seed: int, kinds: Sequence[Kind]) -> Outcome:
    command = inside([sys.executable, "-m", "bench.fleet.run", str(seed), *kinds])
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=WITHIN, check=True)
    return msgspec.json.decode(done.stdout, type=Outcome)


def _tell(outcome: Outcome, count: int) -> None:
    """Say in a line how it went, and what was found."""
    faults = ", ".join(
        f"{' '.join(filter(None, (fault.kind, fault.daemon, fault.engine)))} at {fault.at:.1f} for {fault.seconds:.1f}"
        for fault in outcome.faults
    )
    taken = ", ".join(f"{one:.1f}" for one in outcome.takeovers) or "-"
    print(
        f"{count}: seed {outcome.seed}: {'clean' if outcome.clean else 'FOUND'}; {outcome.layout}, "
        f"{outcome.acts} acts, {outcome.calls} calls, taken over after {taken} s; "
        f"held up {outcome.held_up:.2f} s, {outcome.seconds:.0f} s in all; {faults}",
        file=sys.stderr,
        flush=True,
    )
    for what in FOUND:
        for text in getattr(outcome, what):
            print(f"   {what}: {text}", file=sys.stderr)
    if outcome.logs:
        print(
            f"   logs: {outcome.logs}; again: {COMMAND} --seed {outcome.seed} --schedules 1", file=sys.stderr
        )


if __name__ == "__main__":
    main()
