"""`python -m bench.engine`: play every class of workload in every variant on a real engine, without pause.

Tables and a progress bar go to standard error; the last line of standard output is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Final

from rich.console import Console

from bench.demo.measure import after
from bench.demo.prompts import FRESH_TOKENS, OUTPUT_TOKENS, PREFIX_TOKENS
from bench.demo.runner import Run
from bench.engine.classes import AGENTS, CLASSES, MIXED, unannounced
from bench.engine.kind import EngineKind
from bench.engine.measure import compare
from bench.engine.on_sglang import SGLANG
from bench.engine.on_vllm import VLLM
from bench.engine.places import POOL_SHARE, POOL_TOKENS, TIER_SHARE
from bench.engine.programme import Options, Played, run_all
from bench.engine.report import print_result
from bench.engine.result import Conditions, Result, line, write
from bench.engine.variants import ALONE, FULL, VARIANTS
from bench.workloads.provenance import provenance

KINDS: Final = {kind.name: kind for kind in (VLLM, SGLANG)}


def main() -> None:
    """Measure, print and write with the flags of the command line."""
    given = _parser().parse_args()
    traffic = tuple(unannounced(given.traffic)) if given.traffic else ()
    options = Options(given.steps, given.warmup, given.repetitions, given.seed, given.minutes, traffic)
    names = given.classes or [*CLASSES, *([MIXED] if traffic else [])]
    if MIXED in names and not traffic:
        raise SystemExit("the class mixed needs recorded requests: --traffic FILE (Mooncake's format)")
    variants = FULL if given.full else VARIANTS
    kind = KINDS[given.engine]
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        played = asyncio.run(run_all(kind, Path(folder), names, variants, options))
    classes = {name: compare(performances, options.warmup) for name, performances in played.items()}
    source = provenance(given.traffic) if given.traffic else None
    result = Result(_conditions(kind, options, played, source), classes)
    print_result(result, Console(stderr=True, width=180))
    if given.out is not None:
        write(result, given.out)
    print(line(result))


def _conditions(
    kind: EngineKind, options: Options, played: Played, traffic: dict[str, str | None] | None
) -> Conditions:
    alone = {name: [after(one.run, options.warmup) for one in of[ALONE]] for name, of in played.items()}
    return Conditions(
        engine=kind.title,
        model="mid, 90 million parameters",
        agents=AGENTS,
        prompt_tokens=PREFIX_TOKENS + FRESH_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        pool_share=POOL_SHARE,
        pool_tokens=POOL_TOKENS,
        tier_share=TIER_SHARE,
        steps=options.steps,
        warmup=options.warmup,
        repetitions=min(map(len, alone.values())),
        seed=options.seed,
        cores=os.cpu_count() or 1,
        played=dict.fromkeys(played, f"{datetime.now(UTC):%Y-%m-%d}, commit {_commit()}"),
        active={name: round(fmean(map(_active, runs)), 4) for name, runs in alone.items()},
        flags=kind.flags,
        traffic=traffic,
    )


def _commit() -> str:
    """Return whose code was played; with a + where it was changed since."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"


def _active(run: Run) -> float:
    return len(run.answers) / len(run.ends) / AGENTS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument("--engine", choices=tuple(KINDS), default=VLLM.name)
    parser.add_argument("--steps", type=int, default=24, help="steps of each run")
    parser.add_argument("--warmup", type=int, default=10, help="first steps that don't count")
    parser.add_argument("--repetitions", type=int, default=3, help="at most")
    parser.add_argument(
        "--minutes", type=float, default=24, help="no repetition begins that would likely end later than that"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first repetition's workloads")
    parser.add_argument("--classes", nargs="+", choices=(*CLASSES, MIXED))
    parser.add_argument(
        "--traffic",
        type=Path,
        help="recorded requests (Mooncake's format) for the class mixed, which needs them",
    )
    parser.add_argument("--full", action="store_true", help="all variants; takes more than twice as long")
    parser.add_argument("--out", type=Path, help="where everything measured is written to")
    return parser


if __name__ == "__main__":
    main()
