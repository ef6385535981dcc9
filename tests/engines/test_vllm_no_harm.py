"""What holds by construction beside traffic that nobody announced; how long that takes, against an engine alone, is for
`python -m bench.no_harm` to measure, on a machine that does nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.demo.lab import engine
from bench.no_harm.measure import Outcome, busy, run_beside
from bench.rig import vllm
from bench.rig.daemon import DaemonProcess
from scalesim_daemon.settings import PlannerSettings

BLOCKS = 2
SEED = 2
SECONDS = 20.0
LONGEST_CHUNK_SECONDS = 0.5


@pytest.mark.engine
def test_speculative_work_keeps_to_its_share_and_out_of_the_way(tmp_path: Path) -> None:
    if not vllm.installed():
        pytest.skip(f"vLLM is not installed: {vllm.REMEDY}")

    async def blocks(url: str) -> Outcome:
        outcome, daemon = Outcome(), DaemonProcess(tmp_path, url)
        async with busy(url, daemon, SEED) as background:
            for block in range(BLOCKS):
                await run_beside(background, daemon, f"{SEED} {block}", SECONDS, outcome)
        return outcome

    with engine("vllm", "ours", tmp_path / "engine") as url:
        outcome = asyncio.run(blocks(url))
    assert outcome.beside.failed == 0
    assert len(outcome.beside.requests) > BLOCKS * SECONDS / 2
    assert outcome.prefetched_tokens > 0
    # A block may begin with what was saved up before it, enough for one chunk, and end within one.
    allowed = PlannerSettings().quiet_share + 2 * LONGEST_CHUNK_SECONDS / SECONDS
    assert outcome.speculative_share <= allowed
    assert outcome.starts_beside_requests == 0
