"""The order in which SGLang evicts from the device, by the dues that are heard."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from scalesim_adapters.dues import DueListener, DueTable
from scalesim_adapters.sglang.plugin.ranking import Ranking

log = logging.getLogger("sglang.scalesim")


class Eviction:
    """Ranks the leaves of the cache of full attention by due, and as SGLang does where no dues are heard. `table` is
    what is heard, from when the scheduler has made its cache."""

    def __init__(self, endpoint: str, listen: Callable[[], DueListener]) -> None:
        self.table: DueTable | None = None
        self._endpoint = endpoint
        self._listen = listen
        self._followed = False
        self._ranking: Ranking[Any] | None = None

    def made(self, _: None, component: Any, cache: Any, *args: Any) -> None:
        """The scheduler has made its cache of full attention: rank its evictions."""
        if not cache.enable_session_radix_cache:
            log.warning("without --enable-session-radix-cache SGLang evicts as it would alone")
            return
        try:
            table = self._listen().table
        except ValueError as error:
            log.warning("SCALESIM_DUES: SGLang evicts as it would alone: %s", error)
            return
        ranking: Ranking[Any] = Ranking(table, lambda node: sessions(component, node))
        own: Callable[[Any], Any] = component.session_ref_eviction_strategy

        def rank(node: Any) -> Any:
            return ranking.key(node) if self.follows() else own(node)

        component.session_ref_eviction_strategy = rank
        self.table, self._ranking = table, ranking
        log.info("eviction by due, once dues are heard at %s", self._endpoint)

    def registered(self, _: None, component: Any, session: str, leaf: Any) -> None:
        """A request of a session has ended, and its prompt at a leaf."""
        if self._ranking is not None and leaf is not None and leaf is not component.tree_core.root_node:
            self._ranking.used(session, leaf)

    def released(self, count: int, component: Any, session: str) -> int:
        """A session was closed."""
        if self._ranking is not None:
            self._ranking.closed(session)
        return count

    def reset(self, _: None, component: Any) -> None:
        """The tree is emptied: nobody uses anything."""
        if self._ranking is not None:
            self._ranking.clear()

    def deleted(self, original: Callable[..., None], component: Any, node: Any) -> None:
        """A node leaves the tree: the sessions that ended there end above it."""
        ending = [] if self._ranking is None else self._ranking.ending_at(node)
        original(component, node)
        if self._ranking is not None:
            self._ranking.shortened(ending, component._find_reusable_session_leaf(node.parent))

    def follows(self) -> bool:
        """Whether the device evicts by due now."""
        follows = self.table is not None and not self.table.stale(monotonic())
        if follows != self._followed:
            self._followed = follows
            log.info("evicting by due" if follows else "no dues are heard: evicting as SGLang does")
        return follows


def sessions(component: Any, node: Any) -> Iterable[str]:
    """Return the sessions that SGLang notes at a node."""
    return node.component_data[component.component_type].session_ids or ()
