"""Keeps agents placed: looks at engines and calls, decides for the agents that are this daemon's to place, and tells.

With one engine and one daemon there is nothing to decide, and nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scalesim_daemon.fleet.placement import Host, Placement, serves
from scalesim_daemon.population import Changes, Population
from scalesim_daemon.view import EngineView

if TYPE_CHECKING:
    from scalesim_daemon.fleet.shared import Shared

LOOK_SECONDS = 0.25


@dataclass(slots=True)
class Homes:
    """Where agents live. `shared` is what other daemons know of it, None where there are none."""

    placement: Placement = field(default_factory=Placement)
    shared: Shared | None = None
    _looked_at: float = 0.0
    undecided: set[str] = field(default_factory=set)
    """Agents whose home another daemon is to say, and hasn't."""

    def home(self, agent: str) -> str | None:
        """Return the engine that an agent lives on, None where it has none yet."""
        return self.placement.home(agent)

    def place_agents(
        self,
        views: Mapping[str, EngineView],
        population: Population,
        changes: Changes,
        wall: float,
        model_of: Callable[[str], str | None],
    ) -> None:
        """Place who is new or whose home is gone, and move who is served elsewhere. It costs what has changed."""
        if len(views) < 2 and self.shared is None:
            return
        moved: dict[str, str | None] = {}
        placement = self.placement
        again = set(changes.bound)
        if wall - self._looked_at >= LOOK_SECONDS or not placement.hosts:
            self._looked_at = wall
            again.update(placement.look(self._hosts(views), wall))
            self._spread(placement.movable(population.board.seconds), model_of, moved)
        new = (key for key in (*changes.dues, *changes.started) if placement.home(key) is None)
        for key in (*again, *new, *self.undecided):
            self.undecided.discard(key)
            if not population.knows(key):
                continue
            engine = placement.place(key, model_of(key))
            if engine is not None and self._decides(key) and placement.moved(key, engine):
                moved[key] = engine
        for key in (*changes.dues, *changes.unbound):
            gone = not population.knows(key) and placement.moved(key, None)
            if gone and (self.shared is None or self.shared.speaks_for(key)):
                moved[key] = None
        self._follow_calls(views, population, moved)
        if self.shared is not None and moved:
            self.shared.tell_placed(moved)

    def _spread(
        self,
        agents: Iterable[str],
        model_of: Callable[[str], str | None],
        moved: dict[str, str | None],
    ) -> None:
        """Let agents move to an engine that has joined, until it is about as full as the others."""
        staying: set[tuple[str | None, str | None]] = set()
        for key in agents:
            alike = self.placement.home(key), model_of(key)
            if alike in staying:
                continue
            engine = self.placement.place(key, alike[1], spread=True)
            if engine is None:
                staying.add(alike)
            elif self._decides(key, waits=False) and self.placement.moved(key, engine):
                moved[key] = engine

    def _follow_calls(
        self, views: Mapping[str, EngineView], population: Population, moved: dict[str, str | None]
    ) -> None:
        calls: dict[str, str | None] = {}
        for name, view in views.items():
            seen, view.seen = view.seen or (), set()
            if self.shared is None or self.shared.drives(name):
                # Slots don't tell whose call it was: where an announced one may have gone to several, nothing is known.
                calls.update((key, None if key in calls else name) for key in seen)
        for key, engine in calls.items():
            # Sessions of which no stream speaks come without end.
            if engine is None or not population.knows(key) or not self.placement.worth_telling(key, engine):
                continue
            if self.shared is not None:
                self.shared.tell_call(key, engine)
            self.call_seen(key, engine, moved)

    def call_seen(self, key: str, engine: str, moved: dict[str, str | None]) -> None:
        """A call of an agent was served on an engine, as was seen here or elsewhere. Who moves by that comes to
        `moved`."""
        if self.placement.call_seen(key, engine) and self._decides(key, waits=False):
            if self.placement.moved(key, engine):
                moved[key] = engine
            self.placement.prove(key)

    def _decides(self, key: str, *, waits: bool = True) -> bool:
        """Whether it is this daemon's to say where the agent lives; who is to be asked again `waits`."""
        if self.shared is None or self.shared.decides(key):
            return True
        if waits and self.shared.is_own(key):
            self.undecided.add(key)
        return False

    def _hosts(self, views: Mapping[str, EngineView]) -> dict[str, Host]:
        own = {name: view for name, view in views.items() if self.shared is None or self.shared.drives(name)}
        hosts = {} if self.shared is None else self.shared.hosts()
        hosts.update((name, host_of(view)) for name, view in own.items())
        return hosts


def host_of(view: EngineView) -> Host:
    """Return an engine as a place to live."""
    if view.info is None:
        return Host(view.reachable)
    size = 1 if view.has_slots else (view.info.block_size or 0)
    return Host(
        view.reachable,
        frozenset((*view.info.base_models, *view.loras.registered)),
        (view.capacity or 0) * size,
    )


def may_serve(view: EngineView, model: str | None) -> bool:
    """Whether an engine serves a model, or may: what it serves isn't known before it answers."""
    return view.info is None or serves(model, view.info.base_models, view.loras.registered)
