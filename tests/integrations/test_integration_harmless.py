"""What goes wrong in an integration stays there: the simulation runs on, and one line of the log says what."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import mesa
import numpy
import pytest

from scalesim_client import Publisher
from scalesim_client.integrations import generative_agents, harmless, oasis
from scalesim_client.integrations.mesa import ScaleSimAgent, attach
from tests.client.router import Router


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harmless, "_told", set())


@pytest.fixture(scope="module")
def unheard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    """A publisher that no daemon hears."""
    with Publisher("alone", address=f"ipc://{tmp_path_factory.mktemp('feed')}/nobody") as publisher:
        yield publisher


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as router:
        yield router


class Nameless(ScaleSimAgent, mesa.Agent):
    """An agent whose name can't be told."""

    turns = 0

    @property
    def sidecar_name(self) -> str:
        raise LookupError("no name")

    def step(self) -> None:
        with self.invocation() as tags:
            assert tags == {"extra_body": {}, "extra_headers": {}}
        self.turns += 1


class Crowd(mesa.Model):
    def __init__(self, kind: Callable[[mesa.Model], mesa.Agent]) -> None:
        super().__init__(seed=1)
        self.someone = kind(self)

    def step(self) -> None:
        self.agents.do("step")


def test_an_error_of_ours_does_not_reach_the_model(
    unheard: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    model = Crowd(Nameless)
    with caplog.at_level(logging.WARNING, "scalesim_client"):
        attach(model, unheard)
        for _ in range(3):
            model.step()
    assert model.someone.turns == 3
    assert [record.message for record in caplog.records] == [
        "the name of an agent in Mesa is not told, and no more is said of it",
        "a request's agent is not told, and no more is said of it",
    ]


def test_an_impossible_name_silences_nobody_else(router: Router) -> None:
    class Named(ScaleSimAgent, mesa.Agent):
        sidecar_name = ""

    with Publisher("street", address=router.address) as publisher:
        router.welcome()
        model = Crowd(Named)
        Nameless(model)
        neighbour = Named(model)
        neighbour.sidecar_name = "Ada"
        attach(model, publisher)
        assert router.receive().events == [{"type": "agent.registered", "agent": "Ada"}]


def test_numbers_of_numpy_are_numbers(router: Router) -> None:
    class Walker(ScaleSimAgent, mesa.Agent):
        speed = numpy.float32(0.5)
        vision = numpy.int64(3)

    with Publisher("street", address=router.address) as publisher:
        router.welcome()
        model = Crowd(Walker)
        model.someone.pos = (1, 2)
        attach(model, publisher)
        moved = router.events_until(lambda event: event["type"] == "agent.moved")[-1]
        assert (moved["speed"], moved["vision"]) == (0.5, 3)


def test_an_error_of_the_model_passes(unheard: Publisher) -> None:
    class Broken(ScaleSimAgent, mesa.Agent):
        def step(self) -> None:
            with self.invocation():
                raise LookupError("the model's own")

    model = Crowd(Broken)
    attach(model, unheard)
    with pytest.raises(LookupError, match="the model's own"):
        model.step()


def test_before_it_is_attached_an_agent_asks_without_tags() -> None:
    class Early(ScaleSimAgent, mesa.Agent):
        pass

    agent = Crowd(Early).someone
    agent.acts(3)
    with agent.invocation() as tags:
        assert tags == {"extra_body": {}, "extra_headers": {}}


def test_a_name_that_cannot_be_leaves_the_request_without_tags(unheard: Publisher) -> None:
    with harmless.invoking(unheard, "x" * 257) as tags:
        assert tags == {"extra_body": {}, "extra_headers": {}}


def test_attributes_that_mean_something_else_are_left_out(unheard: Publisher) -> None:
    class Poet(ScaleSimAgent, mesa.Agent):
        vision = "a better world"
        destination = "unknown"
        speed = float("nan")

    model = Crowd(Poet)
    model.someone.pos = (1, 2)
    invalid = unheard.invalid
    attach(model, unheard)
    model.step()
    assert unheard.invalid == invalid


def test_a_persona_without_a_scratch_moves_on(unheard: Publisher) -> None:
    persona = SimpleNamespace(name="Klaus", scratch=None, move=lambda maze, others, tile, time: tile)
    generative_agents.attach([persona], unheard)
    assert persona.move(None, {}, (1, 2), "no time at all") == (1, 2)


def test_a_persona_of_another_kind_takes_what_it_takes(unheard: Publisher) -> None:
    persona = SimpleNamespace(name="Klaus", scratch=None, move=lambda *words, mood: (words, mood))
    generative_agents.attach([persona], unheard)
    assert persona.move(1, mood="glad") == ((1,), "glad")


def test_actions_that_nobody_understands_are_taken_by_oasis_all_the_same(unheard: Publisher) -> None:
    taken: list[Any] = []

    async def step(actions: Any) -> None:
        taken.append(actions)
        await env.platform.update_rec_table()

    async def update() -> None:
        taken.append("recommended")

    agents = [(0, SimpleNamespace())]
    env = SimpleNamespace(
        agent_graph=SimpleNamespace(get_agents=lambda: agents),
        platform=SimpleNamespace(update_rec_table=update, db=None),
        step=step,
    )
    oasis.attach(env, unheard)
    asyncio.run(env.step(5))
    assert taken == [5, "recommended"]
