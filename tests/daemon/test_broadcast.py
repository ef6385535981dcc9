"""The distance broadcast: what a plug-in hears is what the daemon knows, through restarts and silence."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import example, given
from hypothesis import strategies as st

from scalesim_adapters.dues import DueListener, DueTable
from scalesim_client import Publisher
from scalesim_client.events import (
    ActivityStarted,
    AgentReleased,
    AgentWoken,
    Event,
    InvocationFinished,
    InvocationStarted,
    PlanDeclared,
    StepAdvanced,
)
from scalesim_daemon.app import running
from scalesim_daemon.broadcast import RESTATE_SECONDS, Broadcast, DueLedger
from scalesim_daemon.gate import Closed, Opened, Restated, Said, Stream
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.population import Population
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ConfigError, RunMode
from tests.daemon.live import WITHIN, daemon, overrides, until
from tests.daemon.still import open_stream, say, still_sidecar

NAMES = [f"a{number}" for number in range(4)]
STREAMS = [Stream("one", "sim", 1, "step"), Stream("two", "sim", 1, "wall_seconds")]

names = st.sampled_from(NAMES)
whens = st.integers(0, 12).map(float)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(StepAdvanced, now=whens),
    st.builds(lambda agent, until: ActivityStarted(agent=agent, until=until), names, whens),
    st.builds(lambda agents: PlanDeclared(agents=agents), st.lists(names, max_size=6)),
    st.builds(lambda agent: AgentWoken(agent=agent), names),
    st.builds(lambda agent: AgentReleased(agent=agent), names),
    st.builds(lambda agent: InvocationStarted(agent=agent), names),
    st.builds(lambda agent: InvocationFinished(agent=agent), names),
)
happenings = st.one_of(
    st.tuples(st.just("said"), st.sampled_from(STREAMS), st.lists(events, min_size=1, max_size=4)),
    st.tuples(st.just("restated"), st.sampled_from(STREAMS), st.lists(events, max_size=4)),
    st.tuples(st.just("closed"), st.sampled_from(STREAMS), st.just([])),
    st.tuples(st.just("pinned"), st.none(), st.frozensets(names)),
    st.tuples(st.just("asked"), st.none(), st.just([])),
)


# What was overdue is due again where the clock went back, though the due is the same.
@example(
    [
        (what, STREAMS[1], [StepAdvanced(now=now), ActivityStarted(agent="a1", until=0.0)])
        for what, now in (("said", 2.0), ("restated", 0.0))
    ]
)
@given(st.lists(happenings, max_size=30))
def test_a_table_that_hears_all_messages_has_the_boards_distances(
    happened: list[tuple[str, Any, Any]],
) -> None:
    population, table = Population(), DueTable()
    population.apply([Opened(stream) for stream in STREAMS], 0.0)
    ledger = DueLedger(population)
    pinned: set[str] = set()
    table.apply(ledger.snapshot(pinned), 0.0)
    for wall, (what, stream, content) in enumerate(happened, 1):
        match what:
            case "said":
                population.apply([Said(stream, content)], float(wall))
            case "restated":
                population.apply([Restated(stream, [(event, None) for event in content], None)], float(wall))
            case "closed":
                population.apply([Closed(stream)], float(wall))
            case "pinned":
                pinned = {f"sim/{name}" for name in content}
        ledger.mark(population.take_changes())
        message = ledger.snapshot(pinned) if what == "asked" else ledger.delta(pinned)
        assert table.apply(msgspec.msgpack.decode(msgspec.msgpack.encode(message)), 0.0)
        for agent in (f"sim/{name}" for name in NAMES):
            known = population.agents.get(agent)
            near = agent in pinned or (known is not None and known.in_flight > 0)
            assert table.seconds(agent) == (0.0 if near else population.board.seconds(agent)), agent
        assert ledger.delta(pinned).dues == {}


def test_pinned_and_running_agents_are_nearer_than_those_due_now(tmp_path: Path) -> None:
    sidecar = still_sidecar(tmp_path)
    open_stream(sidecar)
    for agent in ("due", "running"):
        say(sidecar, {"type": "agent.activity_started", "agent": agent, "until": 0.0})
    say(sidecar, {"type": "invocation.started", "agent": "running"})
    table = DueTable()
    table.apply(DueLedger(sidecar.population).snapshot({"sim/pinned"}), 0.0)
    assert table.nearness("sim/due") == 0.0
    assert table.nearness("sim/running") == table.nearness("sim/pinned") == -math.inf


@contextmanager
def listening(endpoint: str, silence: float = 1.0) -> Iterator[DueListener]:
    """Listen as a plug-in does."""
    listener = DueListener(endpoint, silence)
    try:
        yield listener
    finally:
        listener.close()


def told(sidecar: Sidecar, table: DueTable) -> bool:
    """Whether the table is current and has the board's distances."""
    board = sidecar.population.board
    return not table.stale(monotonic()) and all(
        table.seconds(agent) == board.seconds(agent) for agent in board.agents()
    )


async def soon(holds: Callable[[], bool]) -> None:
    """Look until it holds."""

    async def look() -> bool:
        return holds()

    await until(look)


def test_a_plugin_hears_dues_and_ticks_and_what_came_before_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, _):
            assert sidecar.broadcast is not None
            with Publisher("village", address=sidecar.feed_address) as publisher:
                publisher.step(0.0)
                for number in range(40):
                    publisher.activity(f"a{number}", until=float(number))
                await soon(lambda: len(sidecar.population.board) == 40)
                with listening(sidecar.broadcast.address) as early:
                    await soon(lambda: len(early.table) == 40 and told(sidecar, early.table))
                    for now in (1.0, 2.0, 3.0):
                        publisher.step(now)
                    await soon(lambda: early.table.seconds("village/a0") == math.inf)
                    publisher.activity("late", until=30.0)
                    with listening(sidecar.broadcast.address) as late:
                        await soon(lambda: late.table.seconds("village/late") < math.inf)
                        await soon(lambda: told(sidecar, early.table) and told(sidecar, late.table))
                        assert early.table.seconds("village/a20") == sidecar.population.board.seconds(
                            "village/a20"
                        )
                    publisher.send(AgentReleased(agent="late"))
                    await soon(lambda: early.table.seconds("village/late") == math.inf)

    asyncio.run(scene())


def test_a_plugin_finds_the_daemon_again_after_its_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        with listening(f"ipc://{tmp_path}/dues", silence=0.8) as listener:
            for until_ in (5.0, 9.0):
                async with daemon(tmp_path) as (sidecar, _):
                    with Publisher("village", address=sidecar.feed_address) as publisher:
                        publisher.step(0.0)
                        publisher.activity("a", until=until_)
                        await soon(
                            lambda u=until_: (
                                listener.table.due("village/a") is not None
                                and listener.table.seconds("village/a") == u
                            )
                        )
                        await soon(lambda s=sidecar: told(s, listener.table))
                await soon(lambda: listener.table.stale(monotonic()))

    asyncio.run(scene())


@pytest.mark.parametrize("mode", [RunMode.PAUSED, RunMode.OBSERVE])
def test_a_daemon_that_must_not_act_is_silent(tmp_path: Path, mode: RunMode) -> None:
    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, _):
            assert sidecar.broadcast is not None
            with listening(sidecar.broadcast.address, silence=0.8) as listener:
                await soon(lambda: not listener.table.stale(monotonic()))
                sidecar.mode = mode
                await soon(lambda: listener.table.stale(monotonic()))
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    publisher.activity("a", for_=4.0)
                    await soon(lambda: len(sidecar.population.board) == 1)
                    assert listener.table.stale(monotonic())
                    sidecar.mode = RunMode.ACTIVE
                    await soon(lambda: listener.table.seconds("village/a") < math.inf)
                    await soon(lambda: told(sidecar, listener.table))

    asyncio.run(scene())


def test_with_nothing_new_it_says_that_it_lives_and_once_a_minute_everything(tmp_path: Path) -> None:
    broadcast = Broadcast(f"ipc://{tmp_path}/dues", Population())
    with zmq.Context() as context, context.socket(zmq.SUB) as plugin:
        plugin.subscribe(b"")
        plugin.connect(broadcast.address)
        deadline = monotonic() + WITHIN
        while not plugin.poll(5):
            assert monotonic() < deadline
            broadcast.publish(frozenset(), 0.0)
        for wall in (0.2, 0.4, 0.5, 0.6, 0.9, 1.0, RESTATE_SECONDS, RESTATE_SECONDS + 0.1):
            broadcast.publish(frozenset(), wall)
        heard = [plugin.recv_multipart() for _ in range(4)]
        assert not plugin.poll(0)
    broadcast.close()
    messages = [msgspec.msgpack.decode(payload) for _, _, payload in heard]
    assert [message["type"] for message in messages] == ["snapshot", "delta", "delta", "snapshot"]
    assert all(not message["dues"] for message in messages)
    numbers = [int.from_bytes(seq, "big") for _, seq, _ in heard]
    assert numbers == [numbers[0] + offset for offset in range(4)]


def test_who_says_what_is_no_subscription_goes_on_hearing(tmp_path: Path) -> None:
    broadcast = Broadcast(f"ipc://{tmp_path}/dues", Population())
    with zmq.Context() as context, context.socket(zmq.XSUB) as plugin:
        plugin.connect(broadcast.address)
        for said in (b"\x01", b"\x02"):
            plugin.send(said)
        deadline = monotonic() + WITHIN
        for wall in (0.0, RESTATE_SECONDS):
            while not plugin.poll(5):
                assert monotonic() < deadline
                broadcast.publish(frozenset(), wall)
            while plugin.poll(100):
                plugin.recv_multipart()
    broadcast.close()


def test_an_address_in_use_stops_the_start(tmp_path: Path) -> None:
    first = Broadcast("tcp://127.0.0.1:*", Population())
    with pytest.raises(ConfigError, match=r"broadcast\.bind"):
        Broadcast(first.address, Population())
    first.close()


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("broadcast:\n  bind: null\n")
    given = {name: value for name, value in overrides(tmp_path).items() if name != "broadcast"}

    async def scene() -> None:
        async with running(load_settings(file, given)) as sidecar:
            assert sidecar.broadcast is None

    asyncio.run(scene())
