"""`python -m bench.unchanged`: what a village saves whose code knows nothing of the sidecar but the gateway's address.

The same calls on a real vLLM: alone; with the plug-in and a daemon that is told everything; and with both, but told
nothing: every call comes through the gateway and names its agent as `user`. Counted are the prompt tokens that the
engine computed, for calls and for prefetches, after the first steps. The last line of standard output is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.demo.measure import after, figures
from bench.demo.prompts import draw_prompts
from bench.engine.measure import recomputed
from bench.engine.on_vllm import VLLM
from bench.engine.places import Performance, Stage, stage
from bench.engine.speech import own
from bench.engine.variants import Variant
from bench.workloads.village import Village

VARIANTS: Final[dict[str, Variant]] = {
    "alone": Variant("alone"),
    "instrumented": Variant("due", own),
    "unchanged": Variant("due", unchanged=True),
}


def main() -> None:
    """Measure with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.unchanged", description=__doc__)
    parser.add_argument("--steps", type=int, default=40, help="steps of each run")
    parser.add_argument("--warmup", type=int, default=20, help="first steps that don't count")
    parser.add_argument("--seed", type=int, default=1, help="of the village")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds that a step takes the simulation")
    parser.add_argument(
        "--model", choices=("tiny", "mid"), default="tiny", help="what is counted is the same"
    )
    given = parser.parse_args()
    played: dict[str, Performance] = {}
    for place in dict.fromkeys(variant.place for variant in VARIANTS.values()):
        names = [name for name, variant in VARIANTS.items() if variant.place == place]
        with (
            tempfile.TemporaryDirectory(prefix="unchanged-") as folder,
            stage(VLLM, Path(folder), {place}, model=given.model, pace=given.pace) as engine,
        ):
            played |= asyncio.run(_play(engine, names, given.seed, given.steps, given.warmup))
    _print(played, given.warmup)


async def _play(
    engine: Stage, names: list[str], seed: int, steps: int, warmup: int
) -> dict[str, Performance]:
    village, played = Village(seed, steps), {}
    prompts = draw_prompts(village)
    for name in names:
        played[name] = await engine.perform(VARIANTS[name], village, prompts, steps, warmup)
        print(f"{name}: {recomputed(played[name], warmup)} tokens computed", file=sys.stderr, flush=True)
    return played


def _print(played: dict[str, Performance], warmup: int) -> None:
    tokens = {name: recomputed(one, warmup) for name, one in played.items()}
    saved = {name: tokens["alone"] - count for name, count in tokens.items()}
    share = saved["unchanged"] / saved["instrumented"] if saved["instrumented"] else 0.0
    table = Table(title="prompt tokens that the engine computed")
    for column in ("", *VARIANTS):
        table.add_column(column, justify="right" if column else "left")
    counted = {name: figures(after(one.run, warmup)) for name, one in played.items()}
    table.add_row("calls", *(str(one.requests) for one in counted.values()))
    table.add_row("failed", *(str(one.failed) for one in counted.values()))
    table.add_row("from the cache", *(f"{one.cached_share:.1%}" for one in counted.values()))
    table.add_row("computed", *(str(count) for count in tokens.values()))
    table.add_row("of it for prefetches", *(str(one.prefetched) for one in played.values()))
    table.add_row("saved", *(str(count) for count in saved.values()))
    Console(file=sys.stdout, width=100).print(table)
    print(f"unchanged code saves {share:.0%} of what the instrumented village saves")
    print(
        json.dumps({"recomputed_tokens": tokens, "saved_tokens": saved, "unchanged_share": round(share, 4)})
    )


if __name__ == "__main__":
    main()
