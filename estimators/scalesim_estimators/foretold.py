"""Estimates that were made elsewhere: taken as they are told, never made anew. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from scalesim_client.events import ClockKind, Event
from scalesim_estimators.base import Estimate
from scalesim_estimators.blend import Blend
from scalesim_estimators.history import HistoryEstimator
from scalesim_estimators.quality import Quality


class ToldQuality(Quality):
    """How good estimates are that were scored elsewhere: `told` is the `chance` that was found there."""

    __slots__ = ("told",)

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(tuple(names))
        self.told = 1.0

    def chance(self) -> float:
        """Return what was told."""
        return self.told

    def invoked(self, agent: str, now: float, step: float) -> bool:
        """Score nothing: who made the estimates does."""
        return False


class Foretold(Blend):
    """A stream's estimates as another daemon has made them; in the place of a blend, and asked like one."""

    __slots__ = ("_told", "worth")

    def __init__(self, clock: ClockKind) -> None:
        history = HistoryEstimator(clock)
        self.worth = ToldQuality((history.name,))
        super().__init__((), history, self.worth)
        self._told: dict[str, Estimate] = {}

    def tell(self, agent: str, estimate: Estimate | None) -> None:
        """Let this be the agent's estimate, None for none."""
        if estimate is None:
            self._told.pop(agent, None)
        else:
            self._told[agent] = estimate

    def listen(self, kind: type[Event], events: Sequence[Event], now: float) -> Collection[str]:
        """Learn nothing: what follows from an event is told, too."""
        return ()

    def renew(self, agents: Sequence[str], now: float, earliest: float = -math.inf) -> list[Estimate | None]:
        """Return the agents' estimates."""
        return list(map(self._told.get, agents))

    def lapsed(self, earliest: float = -math.inf, most: int = 0) -> list[str]:
        """Return nobody: what has lapsed is told anew."""
        return []

    def forget(self, agent: str) -> None:
        """Drop what was told of an agent."""
        self._told.pop(agent, None)
