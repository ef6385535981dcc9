"""What goes wrong among daemons and ends none of them: counted, and said once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field

import structlog

from scalesim_daemon.redis_client import AWAY

# Names come from Redis, where anybody may have written them.
MOST_SAID = 1000

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Mishaps:
    """Counts in `counts`, which the metrics show: `fleet_faults`, `fleet_words_refused` and `fleet_decisions_lost`."""

    counts: Counter[str] = field(default_factory=Counter)
    _said: set[tuple[str, ...]] = field(default_factory=set)

    async def survived(self, what: str, work: Awaitable[None]) -> bool:
        """Return whether work is done; a fault in it is counted, but what it raises while Redis is away is raised."""
        try:
            await work
        except AWAY:
            raise
        except Exception as error:  # noqa: BLE001  # nobody foresaw it
            self.failed(what, error)
            return False
        return True

    def failed(self, what: str, error: BaseException) -> None:
        """Something failed that should not, and is begun anew."""
        self.counts["fleet_faults"] += 1
        if self._is_new("fault", what, type(error).__name__):
            log.error(
                f"{what} failed, and is begun anew: if it goes on, restart this daemon, and report the traceback",
                exc_info=error,
            )

    def refused(self, name: str, error: BaseException) -> None:
        """What another daemon tells makes no sense: it may be of another version, or written by whoever else can."""
        self.counts["fleet_words_refused"] += 1
        if self._is_new("word", name, str(error)):
            log.warning("what another daemon tells isn't understood", name=name, error=str(error))

    def lost(self, decisions: int) -> None:
        """Decisions won't be found in Redis."""
        self.counts["fleet_decisions_lost"] += decisions

    def _is_new(self, *what: str) -> bool:
        if what in self._said or len(self._said) >= MOST_SAID:
            return False
        self._said.add(what)
        return True
