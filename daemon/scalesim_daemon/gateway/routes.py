"""Which engine a request goes to: the one that holds its agent's memory, else the one with the least to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from scalesim_daemon.driver import Driver
from scalesim_daemon.fleet.homes import may_serve


class Routes:
    """Over all engines, by name in the order of the settings."""

    def __init__(self, drivers: Mapping[str, Driver], home: Callable[[str], str | None]) -> None:
        self._drivers = drivers
        self._home = home
        self._in_flight: Counter[str] = Counter()

    def order(self, agent: str | None, model: str | None) -> list[str]:
        """Return the engines that may be asked for an agent's request, the best first.

        What serves the model, as far as that is known, and answers; where nothing does, all are tried. First comes the
        agent's home, then what has served it last; of those that have equally much to do, the one that has served the
        fewest agents.
        """
        views = {name: driver.view for name, driver in self._drivers.items()}
        able = [name for name, view in views.items() if may_serve(view, model)] or list(views)
        alive = [name for name in able if views[name].reachable] or able
        latest = {name: views[name].served.get(agent or "", 0.0) for name in alive}
        home = None if agent is None else self._home(agent)

        def place(name: str) -> tuple[bool, float, int, int]:
            return name != home, -latest[name], self._in_flight[name], len(views[name].served)

        return sorted(alive, key=place)

    def known(self, model: str | None) -> str | None:
        """Return the model where an engine is known to serve it."""
        views = (driver.view for driver in self._drivers.values())
        return model if any(view.info is not None and may_serve(view, model) for view in views) else None

    @contextmanager
    def serving(self, engine: str, agent: str | None) -> Iterator[None]:
        """Count a request on an engine, which from then on holds its agent's memory."""
        if agent is not None:
            self._drivers[engine].view.serves(agent)
        self._in_flight[engine] += 1
        try:
            yield
        finally:
            self._in_flight[engine] -= 1
