"""`python -m bench.host_tier`: play the village without pause on each engine and compare; the last line is JSON."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from bench.demo.lab import POOL_TOKENS
from bench.demo.prompts import FRESH_TOKENS, PREFIX_TOKENS, write_prompts
from bench.demo.runner import Run, play
from bench.host_tier.engines import BLOCK_TOKENS, KINDS, TITLES, Kind, engine
from bench.rig.daemon import DaemonProcess
from bench.workloads.village import Village
from scalesim_client.publisher import Publisher


@dataclass(frozen=True, slots=True)
class Row:
    """One engine's figures over the counted steps: seconds, and tokens and bytes of the prompts and of the tier."""

    kind: Kind
    makespan: float
    calls: int
    prompt_tokens: int
    recomputed: int
    ttft_mean: float
    loaded_bytes: int
    stored_bytes: int
    outputs: str
    errors: int


async def measure(
    kind: Kind, village: Village, steps: int, warmup: int, share: float, pool: float | None
) -> Row:
    """Play the village on a fresh engine of this kind."""
    population = len(village.personas) * (PREFIX_TOKENS + FRESH_TOKENS)
    tier_blocks = int(share * population) // BLOCK_TOKENS
    pool_tokens = POOL_TOKENS if pool is None else int(pool * population)
    folder = Path(tempfile.mkdtemp(prefix=f"tier-{kind}-"))
    print(f"{TITLES[kind]}: the logs are in {folder}", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(engine(kind, folder, tier_blocks, f"ipc://{folder}/dues", pool_tokens))
        prompts = await write_prompts(server.url, village)
        speaker: Publisher | None = None
        if kind.startswith("due"):
            daemon = stack.enter_context(DaemonProcess(folder, server.url))
            speaker = stack.enter_context(Publisher(village.simulation, "step", address=daemon.feed))
        moved: list[tuple[int, int]] = []
        run = await play(
            server.url,
            village,
            prompts,
            pace=0.0,
            steps=steps,
            speaker=speaker,
            on_step=lambda: moved.append(_moved(server.url)),
        )
    return _row(kind, run, warmup, moved)


def _moved(url: str) -> tuple[int, int]:
    """Return how many bytes the engine says went from the host and to it."""
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()

    def total(name: str) -> int:
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(name))

    return total("vllm:kv_offload_load_bytes_total"), total("vllm:kv_offload_store_bytes_total")


def _row(kind: Kind, run: Run, warmup: int, moved: list[tuple[int, int]]) -> Row:
    counted = [answer for answer in run.answers if answer.step > warmup]
    good = [answer for answer in counted if answer.error is None]
    begin = run.ends[warmup - 1] if warmup else 0.0
    before = moved[warmup - 1] if warmup else (0, 0)
    return Row(
        kind=kind,
        makespan=round(run.ends[-1] - begin, 2),
        calls=len(counted),
        prompt_tokens=sum(answer.prompt_tokens for answer in good),
        recomputed=sum(answer.prompt_tokens - answer.cached for answer in good),
        ttft_mean=round(sum(answer.ttft for answer in good) / max(1, len(good)), 3),
        loaded_bytes=moved[-1][0] - before[0],
        stored_bytes=moved[-1][1] - before[1],
        outputs=hashlib.md5("".join(a.output for a in good).encode(), usedforsecurity=False).hexdigest()[:8],
        errors=len(counted) - len(good),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.host_tier", description=__doc__)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--warmup", type=int, default=5, help="first steps that don't count")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.5, help="how much of the population the tier holds")
    parser.add_argument(
        "--pool", type=float, help="how much of the population the device holds; the demo's 0.34 by default"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["alone", "lru", "due"])
    given = parser.parse_args()
    village = Village(given.seed, given.steps)
    rows: list[Row] = []
    for kind in given.kinds:
        began = time.monotonic()
        playing = measure(kind, village, given.steps, given.warmup, given.share, given.pool)
        rows.append(asyncio.run(playing))
        _print(rows[-1], rows[0], time.monotonic() - began)
    print(
        json.dumps(
            {
                "steps": given.steps,
                "warmup": given.warmup,
                "share": given.share,
                "pool": given.pool,
                "seed": given.seed,
                "rows": [asdict(row) for row in rows],
            }
        )
    )


def _print(row: Row, first: Row, seconds: float) -> None:
    cached = 1 - row.recomputed / row.prompt_tokens
    print(
        f"{TITLES[row.kind]:36} {row.makespan:6.1f} s ({first.makespan / row.makespan:.2f}x), {row.calls} calls, "
        f"{row.recomputed} tokens recomputed ({cached:.3f} cached), mean TTFT {row.ttft_mean * 1000:.0f} ms, "
        f"host: {row.loaded_bytes / 1e6:.0f} MB read, {row.stored_bytes / 1e6:.0f} MB written, outputs {row.outputs}, "
        f"{row.errors} errors; {seconds:.0f} s in all",
        flush=True,
    )


if __name__ == "__main__":
    main()
