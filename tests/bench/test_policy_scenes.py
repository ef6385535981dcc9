"""The simulated engine's scenes, the variants that are played on them, and how seeds are summed up."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from bench.engine.result import Numbers
from bench.policy.scenes import CLASSES, Scene, interaction
from bench.policy.simulated import H100, beside, compare, interval, row, shared
from bench.policy.twin import twin
from bench.policy.variants import BOTH_NO_TIER, SWEPT, VARIANTS
from scalesim_daemon.whatif.run import Figures
from scalesim_daemon.whatif.workload import Stranger

AGENTS, STEPS = 25, 6
CPU = twin(None)


@pytest.mark.parametrize("name", CLASSES)
def test_scenes_are_drawn_by_their_seed_and_near_a_fifth_calls(name: str) -> None:
    scene = CLASSES[name](AGENTS, STEPS, 1)
    assert scene == CLASSES[name](AGENTS, STEPS, 1)
    assert 0.1 < scene.active < 0.3
    assert {agent for callers in scene.schedule for agent in callers} <= set(scene.agents)
    assert all(len(set(callers)) == len(callers) for callers in scene.schedule)


def test_villages_side_by_side_share_nothing() -> None:
    scene = interaction(27, 1, 1)
    assert len(scene.agents) == 27
    assert scene.script is not None
    said = [event for lines in scene.script for event in lines.before]
    names = {getattr(event, "agent", None) for event in said} - {None}
    assert names <= set(scene.agents)
    spots = {getattr(event, "xy", None): event.agent for event in said if event.type == "agent.moved"}
    assert all((xy[0] > 300) == name.startswith("v1-") for xy, name in spots.items())


@pytest.mark.parametrize("name", CLASSES)
def test_right_words_gain_and_wrong_ones_harm_little(name: str) -> None:
    scene = CLASSES[name](AGENTS, STEPS, 1)
    told = ("alone", BOTH_NO_TIER, "clairvoyant", "both", "adversarial_no_tier", "ceiling")
    played = {variant: CPU.play(VARIANTS[variant], scene, 1) for variant in told}
    recomputed = {variant: figures.recomputed for variant, figures in played.items()}
    assert len({figures.calls for figures in played.values()}) == 1
    assert recomputed["ceiling"] == 0
    assert recomputed["clairvoyant"] <= 1.2 * recomputed["both"] < recomputed[BOTH_NO_TIER]
    assert recomputed[BOTH_NO_TIER] < recomputed["alone"]
    assert recomputed["adversarial_no_tier"] <= 1.03 * recomputed["alone"]


def independent(seed: int) -> Scene:
    return CLASSES["independent"](AGENTS, STEPS, seed)


def test_seeds_are_summed_up_by_their_median_and_interval() -> None:
    with ThreadPoolExecutor() as pool:
        rows, active = compare(CPU, independent, [1, 2], SWEPT, pool, lambda what: None)
    assert rows["alone"]["makespan_ratio"] == rows["alone"]["makespan_ratio_high"] == 1.0
    both = rows["both"]
    low, middle, high = (both[f"makespan_ratio{end}"] for end in ("_low", "", "_high"))
    assert low is not None and middle is not None and high is not None
    assert 1 < low < middle < high
    assert both["over_shuffled"] is not None and both["ttft_over_host_lru"] is not None
    assert both["over_shuffled"] > 1 < both["ttft_over_host_lru"]
    assert "over_shuffled" not in rows["alone"]
    assert active == pytest.approx(0.2, abs=0.05)


def test_an_interval_holds_nine_in_ten() -> None:
    assert interval([2.0]) == (2.0, 2.0)
    assert interval([float(number) for number in range(21)]) == (1.0, 19.0)


def test_ratios_are_of_equal_seeds() -> None:
    slow, fast = (Figures(span, 10, span / 10, span / 5, 0.5, 100, 0, 160) for span in (20.0, 10.0))
    found = row([slow, fast], [fast, fast])
    assert found["makespan_ratio"] == median([2.0, 1.0])
    assert found["recomputed_tokens_ratio"] == 1.0
    assert found["prefetch_precision"] is None and found["order_accuracy"] is None


def test_figures_are_named_as_the_measured_ones() -> None:
    one = Figures(1.0, 10, 0.1, 0.2, 0.5, 100, 0, 160)
    assert set(row([one], [one]) | beside([one], [one], [one])) <= set(Numbers.__struct_fields__)


def test_the_class_mixed_is_the_village_beside_recorded_requests(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = (
        {"timestamp": 1000 * number, "input_length": 700, "output_length": 64, "hash_ids": [number]}
        for number in range(3)
    )
    trace.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    machine = shared(H100, trace, rate=2.0, longest=800, block_tokens=512)
    scene = machine.classes["mixed"](25, 5, 1)
    assert scene.strangers == (Stranger(0.0, 700, 64), Stranger(0.5, 700, 64), Stranger(1.0, 700, 64))
    assert replace(scene, strangers=()) == machine.classes["interaction"](25, 5, 1)
    assert machine.traffic is not None and machine.traffic["name"] == "trace.jsonl"
