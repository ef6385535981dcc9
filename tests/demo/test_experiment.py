from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bench.demo import lab
from bench.demo.experiment import Options
from bench.demo.loras import run_loras
from bench.demo.programme import run_demo
from bench.demo.report import draw, print_result
from bench.workloads.village import Village


def test_the_whole_demo_on_an_emulated_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lab, "EMULATED_SPEED", 0.0)
    options = Options(Village(1, 4), "village", "emulator", pace=0.3, folder=tmp_path)
    result = asyncio.run(run_demo(options))
    (tmp_path / "loras").mkdir()
    loras = asyncio.run(run_loras("emulator", tmp_path / "loras"))
    draw(result, tmp_path / "demo.png")
    print_result(result, loras, tmp_path / "demo.png")
    assert (loras.ours.failed, loras.alone.failed) == (0, 0)
    assert loras.ours.in_slot > loras.alone.in_slot
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["failed_requests"] == 0
    assert result.report["prefetches"] > 0
    assert said["cached_share_sidecar"] > said["cached_share_alone"]
    assert result.differing[:2] == (0, 0)
    assert [len(run.ends) for run in result.runs] == [4, 4, 4, 4]
