"""What has gone leaves nothing behind: agents, strangers, streams, listeners, LoRAs. Names never come again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import zmq

from scalesim_adapters.base import MemoryKind, Removed, Stored, Tier
from scalesim_client.events import ActivityStarted
from scalesim_daemon import loop, strangers
from scalesim_daemon.broadcast import Broadcast
from scalesim_daemon.gate import (
    GONE_SECONDS,
    MAX_SOURCES,
    SILENT_SECONDS,
    STALE_SECONDS,
    Closed,
    Gate,
    Opened,
    Said,
    Stream,
)
from scalesim_daemon.loop import LONGEST_REST_SECONDS, Sidecar
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.population import Changes, Population
from scalesim_daemon.strangers import Strangers
from tests.daemon.kept import names_kept
from tests.daemon.still import BLOCK, add_engine, open_stream, say, still_sidecar, stored, tokens

GONE = 200
LEFTOVERS = 20
"""Names that a stream keeps of those who called last, whoever they were: a few, however many have gone."""


@pytest.fixture
def still(tmp_path: Path) -> Sidecar:
    sidecar = still_sidecar(tmp_path)
    sidecar.mirror = None
    return sidecar


def test_agents_that_go_leave_nothing(still: Sidecar) -> None:
    engine, other = add_engine(still), add_engine(still, "two")
    open_stream(still)
    for number in range(GONE):
        _live_and_go(still, engine.view, number)
        # What was on its way when the agent went comes afterwards.
        step = Step(Action.LOAD, MemoryKind.PREFIX_KV, f"sim/gone{number}", 0, 1, 1.0, "due next")
        engine.view.ledger.loaded(step.key, 16)
        engine.acts.done(step)
        other.view.happened(stored(f"sim/gone{number}", 1, first=100 + number))
    say(
        still,
        {"type": "path.declared", "path": "news", "nodes": ["a", "b"]},
        {"type": "step.advanced", "now": 999},
    )
    still.cycle()
    assert len(still.population.agents) == 0
    kept = names_kept((still.population, still.gate, engine.view.ledger, engine.view.served), "gone")
    assert len(kept) < LEFTOVERS, sorted(kept)


def _live_and_go(still: Sidecar, view: Any, number: int) -> None:
    name, follower, neighbour = f"gone{number}", f"gone{number + 1}", f"gone{number - 1}"
    key = f"sim/{name}"
    say(
        still,
        {"type": "step.advanced", "now": float(number)},
        {"type": "memory.bound", "agent": name, "token_ids": tokens(number, 2)},
        {"type": "agent.activity_started", "agent": name, "for": 2},
        {"type": "agent.moved", "agent": name, "xy": [0, 0], "destination": [9, 9], "speed": 1, "vision": 5},
        {"type": "agent.moved", "agent": follower, "xy": [9, 9], "vision": 5},
        {"type": "plan.declared", "agents": [name, follower]},
        {"type": "path.declared", "path": "news", "nodes": [neighbour, name, follower]},
        {"type": "agent.activated", "path": "news", "agent": name},
        {"type": "agent.woken", "agent": name},
        {"type": "invocation.started", "agent": name},
    )
    still.cycle()
    view.happened(stored(key, 2, first=2 * number))
    say(
        still,
        {"type": "invocation.finished", "agent": name},
        {"type": "invocation.started", "agent": follower},
        {"type": "invocation.finished", "agent": follower},
    )
    still.cycle()
    for event in (name, follower):
        say(still, {"type": "agent.released", "agent": event})
    still.cycle()
    view.happened(Removed(tuple(range(1000 + 2 * number, 1002 + 2 * number)), Tier.DEVICE))


def test_strangers_are_known_as_long_as_there_are_not_many(
    still: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "MOST_STRANGERS", 3)
    view = add_engine(still).view
    open_stream(still)
    say(still, {"type": "agent.registered", "agent": "rosa"})
    for number, session in enumerate(["sim/rosa", "s1", "s2", "s3", "s1", "s4", "s5"]):
        view.happened(Stored((number,), None, tuple(range(BLOCK)), BLOCK, Tier.DEVICE, session))
    assert set(view.served) == {"sim/rosa", "s1", "s4", "s5"}


def test_a_stranger_who_becomes_an_agent_is_none_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "MOST_STRANGERS", 2)
    agents: set[str] = set()
    known = Strangers(agents)
    assert [known.served(session) for session in ("a", "b")] == [None, None]
    agents.add("a")
    assert known.served("c") is None, "an agent is not forgotten for a stranger"
    assert known.served("d") == "b"
    assert known.served("a") is None


def opened(name: str) -> dict[str, Any]:
    stream = {"type": "stream.opened", "simulation": "sim", "source": name, "incarnation": 1}
    return {**stream, "clock": "step"}


def _closed(gate: Gate, now: float) -> list[str]:
    """Let time pass until nobody goes any more."""

    def gone() -> Iterator[str]:
        while closed := gate.tick(now):
            yield from (one.stream.source for one in closed)

    return list(gone())


def test_a_stream_that_is_silent_for_a_day_counts_as_closed() -> None:
    gate = Gate()
    for name in ("one", "two", "three"):
        gate.admit(name, 0, [opened(name)], name.encode())
    assert _closed(gate, GONE_SECONDS - 1) == []
    gate.admit("one", 1, [{"type": "agent.woken", "agent": "a"}], b"one")
    assert _closed(gate, GONE_SECONDS + 1) == ["two", "three"]
    assert list(gate.streams()) == ["one"]
    # Who speaks again is asked for all that it has to say.
    verdict = gate.admit("two", 1, [{"type": "agent.woken", "agent": "a"}], b"two")
    assert (verdict.resync, verdict.last_seq, verdict.admitted) == (True, -1, ())


def test_a_dead_stream_with_a_gap_is_stale_for_some_minutes_only() -> None:
    gate = Gate()
    for name in ("whole", "gap"):
        gate.admit(name, 0, [opened(name)], name.encode())
    gate.admit("gap", 5, [], b"gap")
    assert _closed(gate, STALE_SECONDS - 1) == []
    assert gate.streams()["gap"][1]
    assert _closed(gate, STALE_SECONDS) == ["gap"]
    assert [stale for _, stale in gate.streams().values()] == [False]


def test_who_opens_again_by_a_door_without_numbers_may_be_silent_for_a_day() -> None:
    """Its clock and its simulation's name would be lost: it speaks on without being asked to open anew."""
    gate = Gate()
    for _ in range(2):
        gate.admit("one", None, [opened("one")])
    assert gate.streams()["one"][1]
    assert _closed(gate, GONE_SECONDS - 1) == []
    assert _closed(gate, GONE_SECONDS) == ["one"]


def test_who_comes_back_by_a_door_without_numbers_is_who_it_was() -> None:
    gate = Gate()
    (came,) = gate.admit("town", None, [opened("town")]).admitted
    assert _closed(gate, GONE_SECONDS) == ["town"]
    back = gate.admit("town", None, [{"type": "agent.woken", "agent": "a"}])
    assert [one.stream for one in back.admitted] == [came.stream]
    # What it said before is lost: it is asked for.
    assert back.resync and gate.streams() == {"town": (came.stream, True)}
    told = gate.admit("town", None, [{"type": "state.snapshot", "part": 0, "of": 1, "events": []}])
    assert not told.resync
    gate.admit("town", None, [{"type": "stream.closed"}])
    # Who closed its stream may be anybody the next time.
    assert gate.admit("town", None, []).admitted == []
    assert gate.streams()["town"][0] == Stream("town", "town", 0, "wall_seconds")


def test_who_was_displaced_is_remembered_as_long_as_there_are_not_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scalesim_daemon.gate.MAX_SOURCES", 3)
    gate = Gate()
    for number in range(7):
        gate.admit(str(number), None, [opened(str(number))])
    assert list(gate.streams()) == ["4", "5", "6"]
    (closed, said) = gate.admit("3", None, [{"type": "agent.woken", "agent": "a"}]).admitted
    assert isinstance(closed, Closed) and said.stream.simulation == "sim"
    (_, said) = gate.admit("0", None, [{"type": "agent.woken", "agent": "a"}]).admitted
    assert said.stream.simulation == "0", "the first of all is forgotten"


def test_publishers_that_crashed_make_room_for_others() -> None:
    gate = Gate()
    for number in range(MAX_SOURCES):
        gate.admit(str(number), 0, [opened(str(number))], b"%d" % number)
    gate.tick(SILENT_SECONDS / 2)
    for number in range(1, MAX_SOURCES):
        gate.admit(str(number), 1, [], b"%d" % number)
    assert gate.admit("more", 0, [opened("more")], b"more").error is not None
    gate.tick(SILENT_SECONDS)
    went, came = gate.admit("more", 0, [opened("more")], b"more").admitted
    assert isinstance(went, Closed) and went.stream.source == "0"
    assert isinstance(came, Opened)
    # All others have said something meanwhile.
    assert gate.admit("one too many", 0, [opened("x")], b"x").error is not None


def test_with_a_silent_stream_its_agents_go(still: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    open_stream(still)
    say(still, {"type": "agent.activity_started", "agent": "a", "for": 3})
    still.cycle()
    assert len(still.population.board) == 1
    later = monotonic() + GONE_SECONDS + 1
    monkeypatch.setattr(loop, "monotonic", lambda: later)
    still.cycle()
    assert (len(still.population.agents), len(still.population.board)) == (0, 0)
    assert still.gate.streams() == {}


def test_who_speaks_before_the_first_cycle_has_just_spoken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a host that has been up for longer than any stream may be silent."""
    monkeypatch.setattr(loop, "monotonic", lambda: 2 * GONE_SECONDS)
    still = still_sidecar(tmp_path)
    still.mirror = None
    open_stream(still)
    still.cycle()
    assert list(still.gate.streams()) == ["sim"]


def test_of_dues_nothing_is_kept_while_nobody_is_told(tmp_path: Path) -> None:
    population = Population()
    stream = Stream("sim", "sim", 1, "step")
    population.apply([Opened(stream)], 0.0)
    broadcast = Broadcast(f"ipc://{tmp_path}/dues", population)

    def act(name: str) -> Changes:
        population.apply([Said(stream, [ActivityStarted(agent=name, for_=3.0)])], 0.0)
        return population.take_changes()

    with zmq.Context() as context:
        with context.socket(zmq.SUB) as plugin:
            plugin.connect(broadcast.address)
            plugin.subscribe(b"")
            while not plugin.poll(5):
                broadcast.publish(frozenset(), 0.0)
            broadcast.mark(act("told"))
            broadcast.publish(frozenset(), 0.1)
            broadcast.hush()
            broadcast.mark(act("observed"))
            assert _told(broadcast, population) == set()
            broadcast.publish(frozenset(), 0.2)
            assert _told(broadcast, population) == {"sim/told", "sim/observed"}
        while _told(broadcast, population):
            broadcast.publish(frozenset(), 0.3)
        broadcast.mark(act("unheard"))
        assert _told(broadcast, population) == set()
    broadcast.close()


def _told(broadcast: Broadcast, population: Population) -> set[str]:
    """Return the agents of which the broadcast itself keeps something: it knows the population, too."""
    ledger = broadcast._ledger
    assert ledger._population is population
    return {*ledger._told, *ledger._marked}


def test_of_a_flood_half_of_the_time_is_for_taking_it_in(
    still: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _rest_after(0.7, still, monkeypatch) == pytest.approx(0.7)
    assert _rest_after(0.02, still, monkeypatch) == 0


def test_who_stood_still_in_a_cycle_does_not_rest_from_it(
    still: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _rest_after(3600.0, still, monkeypatch) == LONGEST_REST_SECONDS


def _rest_after(seconds: float, still: Sidecar, monkeypatch: pytest.MonkeyPatch) -> float:
    """Return how long the loop rests after a cycle of so many seconds."""

    class Stop(Exception):
        pass

    async def sleep(seconds: float) -> None:
        raise Stop(seconds)

    now = [0.0]

    def cycle(_: Sidecar) -> None:
        now[0] += seconds

    monkeypatch.setattr(Sidecar, "cycle", cycle)
    monkeypatch.setattr(loop.asyncio, "sleep", sleep)
    monkeypatch.setattr(loop, "monotonic", lambda: now[0])
    still.wake()
    with pytest.raises(Stop) as stopped:
        asyncio.run(still.run())
    return float(stopped.value.args[0])
