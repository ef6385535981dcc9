"""The parts of `bench.next_use` that need no engine."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from bench.next_use.engine import Share
from bench.next_use.measure import AGENTS, CLASSES, VARIANTS, Class, Shares, record
from bench.next_use.recording import BLOCK_TOKENS, FRESH_TOKENS, PREFIX_BLOCKS, Recording
from bench.next_use.report import draw, ratio, summary
from bench.next_use.voices import broadcasting, recorded
from bench.workloads.classes import Loners
from scalesim_adapters.dues import DueListener
from scalesim_client.events import InvocationFinished, InvocationStarted
from tests.adapters.dues_scene import until

STEPS = 30
PREFIX = PREFIX_BLOCKS * BLOCK_TOKENS


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording.of(Loners(1, STEPS, AGENTS))


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_has_twelve_agents_and_calls_of_them_all(name: Class) -> None:
    recording = record(name, 1, STEPS)
    assert len(recording.personas) == AGENTS
    assert {call.agent for call in recording.calls} == set(recording.personas)


def test_the_index_names_each_agents_next_call(recording: Recording) -> None:
    order = [call.agent for call in recording.calls]
    for position in range(len(order) + 1):
        uses = recording.next_uses(position)
        assert uses == {agent: order.index(agent, position) for agent in order[position:]}


def test_prompts_of_an_agent_have_its_prefix_in_common_and_nothing_else(recording: Recording) -> None:
    prompts = [recording.prompt(position) for position in range(len(recording.calls))]
    assert {len(prompt) for prompt in prompts} == {PREFIX + FRESH_TOKENS}
    assert len({tuple(prompt[:PREFIX]) for prompt in prompts}) == AGENTS
    assert len({tuple(prompt[:BLOCK_TOKENS]) for prompt in prompts}) == AGENTS
    assert len({tuple(prompt[PREFIX:]) for prompt in prompts}) == len(prompts)


def test_a_plug_in_hears_the_record_after_every_call(recording: Recording, tmp_path: Path) -> None:
    dues = f"ipc://{tmp_path}/dues"
    with (
        closing(DueListener(dues)) as plug_in,
        broadcasting(dues) as socket,
        recorded(socket, dues, recording) as voice,
    ):
        voice.say()
        for position, call in enumerate(recording.calls):
            until(lambda: told(plug_in, recording) == recording.next_uses(position))  # noqa: B023 - waited for here
            voice.say(InvocationStarted(agent=call.agent))
            voice.say(InvocationFinished(agent=call.agent))
        until(lambda: told(plug_in, recording) == {})


def told(plug_in: DueListener, recording: Recording) -> dict[str, float]:
    dues = {agent: plug_in.table.due(f"{recording.simulation}/{agent}") for agent in recording.personas}
    return {agent: due[1] for agent, due in dues.items() if due is not None}


def test_the_summary_names_what_misses_the_goal(recording: Recording, tmp_path: Path) -> None:
    def shares(estimated: int) -> Shares:
        cached = dict.fromkeys(VARIANTS, 50) | {"estimated": estimated, "recorded": 80}
        return {("activity", variant): Share(100, tokens) for variant, tokens in cached.items()}

    pools = {6: shares(77), 2: shares(72)}
    assert ratio(pools[2], "activity") == pytest.approx(0.9)
    said = summary({"activity": recording}, pools, seed=1)
    assert said["ratio"] == {"activity": {6: 0.963, 2: 0.9}}
    assert said["missed"] == ["activity, pool for 2"]
    assert said["shares"]["activity"]["recency"] == {6: 0.5, 2: 0.5}
    draw(pools, tmp_path / "out" / "plot.png")
    assert (tmp_path / "out" / "plot.png").stat().st_size > 1000
