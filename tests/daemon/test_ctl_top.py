"""`scalesimctl top` on a whole daemon, its keys pressed by Textual's pilot."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from scalesim_daemon.ctl.client import Daemon, Message
from scalesim_daemon.ctl.top.app import Top
from scalesim_daemon.ctl.top.asking import Question
from scalesim_daemon.ctl.top.heard import Order, Population
from scalesim_daemon.settings import RunMode
from tests.daemon.ctl_rig import ODD, Whole, call, in_a_thread, populate
from tests.daemon.live import emulator, until

SIZE = (120, 30)
PLANNED = ["planned", "load prefix_kv 0-2", "town/late"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("ctl-top")
    with emulator(folder) as engine, in_a_thread(folder, engine.url, redis={"enabled": False}) as whole:
        populate(whole)
        yield whole


class Screen:
    """What is on the screen, as somebody reads it."""

    def __init__(self, top: Top, pilot: Pilot[None]) -> None:
        self.top = top
        self.pilot = pilot

    def table(self, name: str) -> list[list[str]]:
        table = self.top.query_one(f"#{name}", DataTable)
        return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]

    def agents(self) -> list[str]:
        return [row[0] for row in self.table("agents")]

    def agent(self, key: str) -> list[str]:
        return next((row for row in self.table("agents") if row[0] == key), [])

    def text(self, name: str) -> str:
        return str(self.top.query_one(f"#{name}", Static).content)

    def said(self) -> str:
        return "\n".join(one.message for one in self.top._notifications)

    async def wait(self, holds: Callable[[], bool]) -> None:
        async def held() -> bool:
            await self.pilot.pause()
            return holds()

        await until(held)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Screen]:
    """Open top on a daemon, and wait until it shows agents."""
    async with Daemon(url, None) as daemon:
        top = Top(daemon)
        async with top.run_test(size=SIZE, notifications=True) as pilot:
            screen = Screen(top, pilot)
            await screen.wait(lambda: bool(screen.agents()) and "mode" in screen.text("head"))
            yield screen


def test_it_shows_agents_engines_plan_and_what_prefetches_came_to(whole: Whole) -> None:
    async def scene() -> None:
        async with opened(whole.url) as screen:
            shown = [ODD.replace("\x1b", "\ufffd"), "town/a0", "town/a1", "town/a2"]
            await screen.wait(lambda: screen.agents() == shown)
            await screen.wait(lambda: screen.agent("town/a0")[3:5] == ["device", "100.0%"])
            assert screen.agent("town/a0")[1] == "10 step"
            assert "mode active" in screen.text("head") and "4 of 4 agents" in screen.text("head")
            await screen.wait(lambda: bool(screen.table("engines")))
            assert screen.table("engines")[0][:2] == ["engine-0", "up"]
            await screen.wait(lambda: "prefetches: 1" in screen.text("outcomes"))
            assert "copies of LoRAs" in screen.text("outcomes")
            whole.say({"type": "step.advanced", "now": 4.0})
            await screen.wait(lambda: screen.agent("town/a0")[1] == "6 step")

    asyncio.run(scene())


def test_what_is_under_way_is_shown_first(whole: Whole) -> None:
    async def scene() -> None:
        async with opened(whole.url) as screen:
            whole.say({"type": "invocation.started", "agent": "a2"})
            whole.say(
                {"type": "memory.bound", "agent": "late", "token_ids": list(range(1000, 1064))},
                {"type": "agent.activity_started", "agent": "late", "for": 1.0},
            )
            await screen.wait(
                lambda: screen.agents()[0] == "town/a2" and "in flight" in screen.agent("town/a2")
            )
            await screen.wait(lambda: PLANNED in [row[1:4] for row in screen.table("plan")])
            whole.say(
                {"type": "agent.released", "agent": "late"}, {"type": "invocation.finished", "agent": "a2"}
            )
            await screen.wait(lambda: PLANNED not in [row[1:4] for row in screen.table("plan")])
            await screen.wait(lambda: "town/late" not in screen.agents())

    asyncio.run(scene())


def test_keys_pin_unpin_prefetch_and_evict_the_agent_under_the_cursor(whole: Whole) -> None:
    async def scene() -> None:
        async with opened(whole.url) as screen:
            await screen.press("s", "s", "s")
            await screen.wait(lambda: "by agent" in screen.text("head") and screen.agents()[1] == "town/a0")
            await screen.press("home", "down", "p")
            await screen.wait(lambda: screen.agent("town/a0")[5] == "pinned")
            assert "town/a0 is pinned" in screen.said()
            assert set(whole.sidecar.pins) == {"town/a0"}
            await screen.press("u")
            await screen.wait(lambda: screen.agent("town/a0")[5] == "")
            await screen.press("f")
            await screen.wait(lambda: "load prefix_kv of town/a0 on engine-0: done" in screen.said())
            await screen.press("e")
            await screen.wait(lambda: "stock engines evict what was used longest ago" in screen.said())

    asyncio.run(scene())


def test_to_pause_has_to_be_confirmed(whole: Whole) -> None:
    async def scene() -> None:
        async with opened(whole.url) as screen:
            await screen.press("space", "n")
            assert whole.sidecar.mode is RunMode.ACTIVE
            await screen.press("space")
            assert isinstance(screen.top.screen, Question)
            await screen.press("y")
            await screen.wait(lambda: "mode paused" in screen.text("head"))
            await screen.press("space", "y")
            await screen.wait(lambda: "mode active" in screen.text("head"))
            await screen.press("q")
        assert screen.top.return_code == 0

    asyncio.run(scene())


def test_the_filter_and_the_cursor_hold_while_agents_move(whole: Whole) -> None:
    async def scene() -> None:
        async with opened(whole.url) as screen:
            await screen.press("slash", *"town/a", "enter")
            await screen.wait(lambda: len(screen.agents()) == 3)
            assert "3 of 3 agents" in screen.text("head") and not screen.top.query_one(Input).display
            await screen.press("end")
            last = screen.agents()[-1]
            assert screen.top._selected() == last
            whole.say({"type": "agent.woken", "agent": last.removeprefix("town/")})
            await screen.wait(lambda: screen.agents()[0] == last)
            assert screen.top._selected() == last
            await screen.press("escape")
            await screen.wait(lambda: len(screen.agents()) == 4)
            await screen.press("ctrl+c")
        assert screen.top.return_code == 130

    asyncio.run(scene())


def test_it_outlives_the_daemon_and_finds_the_next_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        api = {"port": free.getsockname()[1]}
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder in (first, second):
        folder.mkdir()

    async def scene() -> None:
        daemon = in_a_thread(first, api=api, redis={"enabled": False})
        whole = await asyncio.to_thread(daemon.__enter__)
        populate(whole)
        async with opened(whole.url) as screen:
            await asyncio.to_thread(daemon.__exit__, None, None, None)
            await screen.wait(lambda: screen.text("head").startswith("AWAY"))
            assert "town/a0" in screen.agents(), "what was known is still to be seen"
            await screen.press("p")
            await screen.wait(lambda: "no daemon answers" in screen.said())
            daemon = in_a_thread(second, api=api, redis={"enabled": False})
            whole = await asyncio.to_thread(daemon.__enter__)
            try:
                await screen.wait(lambda: not screen.text("head").startswith("AWAY"))
                assert screen.agents() == []
            finally:
                await asyncio.to_thread(daemon.__exit__, None, None, None)

    asyncio.run(scene())


def test_elsewhere_than_on_a_terminal_it_says_what_to_use(whole: Whole) -> None:
    done = call("top", "--url", whole.url)
    assert done.exit_code == 2 and "needs a terminal" in done.stderr and "--watch" in done.stderr


@pytest.mark.parametrize(
    ("order", "keys"),
    [
        (Order.DISTANCE, ["s/b", "s/a", "s/c", "s/d"]),
        (Order.TIER, ["s/c", "s/a", "s/b", "s/d"]),
        (Order.RESIDENT, ["s/a", "s/b", "s/c", "s/d"]),
        (Order.AGENT, ["s/a", "s/b", "s/c", "s/d"]),
    ],
)
def test_agents_are_ranked(order: Order, keys: list[str]) -> None:
    population = Population()
    about = {"source": "s", "pinned": False, "in_flight": 0, "resident": None, "tier": None}
    rows = [
        {**about, "key": "s/a", "due": 3.0, "tier": "host", "resident": 0.5},
        {**about, "key": "s/b", "due": 9.0, "tier": "storage", "in_flight": 1},
        {**about, "key": "s/c", "due": 9.0, "tier": "device"},
        {**about, "key": "s/d", "due": None, "source": None},
    ]
    clocks = {"s": {"kind": "step", "now": 1.0, "pace": 2.0}}
    population.hear(Message("snapshot", {"mode": "active", "clocks": clocks, "agents": rows}))
    assert [agent.key for agent in population.first(9, order, "")[0]] == keys
    assert [population.seconds(agent) for agent in population.first(2, Order.AGENT, "")[0]] == [4.0, 16.0]
    assert population.first(2, order, "/d")[1] == 1
    assert Order.AGENT.next() is Order.DISTANCE
