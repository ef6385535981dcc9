"""The screen of `top`: it listens to the stream for agents, and asks now and then for what the stream doesn't tell."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, NoReturn

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Footer, Input, Static

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.admin.models import ModeState, PinState
from scalesim_daemon.api_models import Engines, PlanState, Report
from scalesim_daemon.ctl.client import INTERRUPTED, Daemon, Failure, in_path
from scalesim_daemon.ctl.top.asking import Question
from scalesim_daemon.ctl.top.heard import Order, Population
from scalesim_daemon.ctl.top.listing import Listing
from scalesim_daemon.ctl.top.rows import (
    AGENT_COLUMNS,
    ENGINE_COLUMNS,
    PLAN_COLUMNS,
    agent_rows,
    engine_rows,
    outcomes,
    plan_rows,
)
from scalesim_daemon.ctl.views.steering import operation_words
from scalesim_daemon.ctl.views.texts import line
from scalesim_daemon.ctl.waiting import came_to_something, order, states
from scalesim_daemon.settings import RunMode

DRAW_SECONDS = 0.25
ASK_SECONDS = 1.0
RETRY_SECONDS = 1.0
# So many agents are drawn: the first of the order, of those that the filter lets through.
MOST_AGENTS = 200
MOST_STEPS = 100
WITHIN_SECONDS = 60.0
ENDED = "the daemon ended the stream"


class Top(App[None]):
    """Agents by distance, engines with their budgets, the plan, and what the prefetches came to."""

    TITLE = "scalesimctl top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pin", "Pin"),
        Binding("u", "unpin", "Unpin"),
        Binding("f", "order('prefetch')", "Prefetch"),
        Binding("e", "order('evict')", "Evict"),
        Binding("space", "switch", "Pause/resume"),
        Binding("slash", "filter", "Filter"),
        Binding("s", "sort", "Sort"),
        Binding("q", "quit", "Quit"),
        Binding("escape", "unfilter", "Show all", show=False),
        Binding("ctrl+c", "interrupt", "Quit", show=False, priority=True),
    ]
    CSS = """
    #head { height: 1; text-style: bold; background: $panel; }
    #head.away { color: $text-error; background: $error-muted; }
    #engines { height: auto; max-height: 10; }
    #outcomes { height: 3; color: $text-muted; }
    #agents { width: 3fr; }
    #plan { width: 2fr; }
    #filter { display: none; height: 3; }
    Question { align: center middle; }
    #question { width: auto; height: auto; padding: 1 2; border: thick $primary; background: $surface; }
    #question Label { width: auto; }
    """

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        self.daemon = daemon
        self.population = Population()
        self.away: str | None = "not connected yet"
        self.order = Order.DISTANCE
        self.text = ""
        self._heard = True

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Static(id="head")
        yield Listing(ENGINE_COLUMNS, id="engines")
        yield Static(id="outcomes")
        with Horizontal():
            yield Listing(AGENT_COLUMNS, id="agents")
            yield Listing(PLAN_COLUMNS, id="plan")
        yield Input(placeholder="only agents with this in their key", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to listen, to ask and to draw."""
        self.query_one("#agents").focus()
        self.run_worker(self._listen())
        self.run_worker(self._ask())
        self.set_interval(DRAW_SECONDS, self._draw)

    async def _listen(self) -> NoReturn:
        """Hear the stream; where it ends or can't be had, say so and try again."""
        while True:
            try:
                async for message in self.daemon.follow():
                    self.population.hear(message)
                    self.away, self._heard = None, True
                self.away = ENDED
            except Failure as failure:
                self.away = failure.problem
            self._heard = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _ask(self) -> NoReturn:
        """Ask for engines, plan and report; the stream says where nobody answers."""
        while True:
            try:
                engines, plan, report = await asyncio.gather(
                    self.daemon.ask("/v1/engines", Engines),
                    self.daemon.ask("/v1/plan", PlanState, limit=MOST_STEPS),
                    self.daemon.ask("/v1/report", Report),
                )
            except Failure:
                pass
            else:
                self.query_one("#engines", Listing).put(engine_rows(engines))
                self.query_one("#plan", Listing).put(plan_rows(plan, MOST_STEPS))
                self.query_one("#outcomes", Static).update(outcomes(engines, report))
            await asyncio.sleep(ASK_SECONDS)

    def _draw(self) -> None:
        """Show what was heard since the last time."""
        if not self._heard:
            return
        self._heard = False
        agents, meant = self.population.first(MOST_AGENTS, self.order, self.text)
        self.query_one("#agents", Listing).put(agent_rows(self.population, agents))
        facts = [
            self.daemon.url,
            f"mode {self.population.mode or 'unknown'}",
            f"{len(agents)} of {meant} agents",
        ]
        facts.append(f"by {self.order}")
        if self.text:
            facts.append(f"with {self.text!r}")
        if self.away is not None:
            facts.insert(0, f"AWAY, as it was before: {self.away}")
        head = self.query_one("#head", Static)
        head.set_class(self.away is not None, "away")
        head.update(line("   ".join(facts)))

    def action_pin(self) -> None:
        """Pin the agent under the cursor."""
        if (key := self._selected()) is not None:
            self.run_worker(self._pin(key, "PUT"))

    def action_unpin(self) -> None:
        """End the pin of the agent under the cursor."""
        if (key := self._selected()) is not None:
            self.run_worker(self._pin(key, "DELETE"))

    def action_order(self, what: str) -> None:
        """Prefetch or evict the prefix of the agent under the cursor, and say what comes of it."""
        if (key := self._selected()) is not None:
            self.run_worker(self._order(what, key))

    def action_switch(self) -> None:
        """Pause, or resume, once that is confirmed."""
        word = "pause" if self.population.mode == RunMode.ACTIVE else "resume"

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(self._switch(word))

        self.push_screen(Question(f"{word.capitalize()} {self.daemon.url}?"), answered)

    def action_filter(self) -> None:
        """Ask for what is to be in the agents' keys."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def action_unfilter(self) -> None:
        """Show all agents."""
        self.query_one("#filter", Input).value = ""
        self.on_input_submitted()

    def on_input_changed(self, changed: Input.Changed) -> None:
        """Let the filter hold while it is written."""
        self.text, self._heard = changed.value, True

    def on_input_submitted(self) -> None:
        """Go back to the agents."""
        self.query_one("#filter", Input).display = False
        self.query_one("#agents").focus()

    def action_sort(self) -> None:
        """Sort by what comes next."""
        self.order, self._heard = self.order.next(), True

    def action_interrupt(self) -> None:
        """End as every command does that is interrupted."""
        self.exit(return_code=INTERRUPTED)

    def _selected(self) -> str | None:
        return self.query_one("#agents", Listing).selected

    async def _pin(self, key: str, method: str) -> None:
        body: dict[str, Any] | None = {} if method == "PUT" else None
        try:
            state = await self.daemon.ask(f"/v1/pins/{in_path(key)}", PinState, method=method, body=body)
        except Failure as failure:
            self._complain(failure)
        else:
            self._say(f"{key} is {'not pinned' if state.until is None else 'pinned'}", state.not_kept)

    async def _switch(self, word: str) -> None:
        try:
            state = await self.daemon.ask(f"/v1/{word}", ModeState, method="POST")
        except Failure as failure:
            self._complain(failure)
        else:
            self._say(f"mode {state.mode}", state.not_kept)

    async def _order(self, what: str, key: str) -> None:
        try:
            started = await order(self.daemon, what, MemoryKind.PREFIX_KV, key, None, WITHIN_SECONDS)
            over = [state async for state in states(self.daemon, started)][-1]
        except Failure as failure:
            self._complain(failure)
        else:
            self.notify(
                line(operation_words(over)).plain,
                severity="information" if came_to_something(over) else "warning",
                markup=False,
            )

    def _say(self, what: str, not_kept: str | None) -> None:
        self.notify(line(what).plain, title=not_kept or "", markup=False)

    def _complain(self, failure: Failure) -> None:
        text = failure.problem if failure.remedy is None else f"{failure.problem}: {failure.remedy}"
        self.notify(line(text).plain, severity="error", markup=False)
