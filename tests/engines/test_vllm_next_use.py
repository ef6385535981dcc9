"""Eviction by estimated dues in a real vLLM against eviction by the recorded next use, on a small simulation of each
class and a pool for half of its agents. `python -m bench.next_use` measures smaller pools, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.next_use.measure import AGENTS, CLASSES, measure, record
from bench.next_use.report import GOAL, ratio
from bench.rig import vllm

STEPS = 18


@pytest.mark.engine
def test_estimates_reach_nearly_what_the_record_does(tmp_path: Path) -> None:
    if not vllm.installed():
        pytest.skip(f"vLLM is not installed: {vllm.REMEDY}")
    recordings = {name: record(name, 1, STEPS) for name in CLASSES}
    shares = measure(tmp_path, AGENTS // 2, recordings, print)
    for name in CLASSES:
        print(name, f"{ratio(shares, name):.3f}")
        # Otherwise nothing would depend on who is evicted.
        assert shares[name, "recency"].cached < 0.8 * shares[name, "recorded"].cached
        assert ratio(shares, name) >= GOAL
        assert ratio(shares, name, "declared") >= GOAL
