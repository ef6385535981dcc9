"""What became of the prefetches: used by the invocation that they were for, wasted, or done twice. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Step

# Beyond that, what was brought in first of what lies unused counts as gone for good: names may never come again.
MOST_BROUGHT = 200_000


@dataclass(slots=True)
class Ledger:
    """Counts prefetches (one per agent and invocation, however many chunks) and the tokens computed.

    `reloads` are loads, chunk by chunk, of what was loaded before and was lost unused: churn. Of all `prefix_tokens`
    that agents called with, `found_tokens` were on the device.
    """

    prefetches: int = 0
    used: int = 0
    wasted: int = 0
    tokens: int = 0
    tokens_wasted: int = 0
    touches: int = 0
    cancelled: int = 0
    failed: int = 0
    prefix_tokens: int = 0
    found_tokens: int = 0
    reloads: Counter[MemoryKind] = field(default_factory=Counter)
    _open: dict[str, int] = field(default_factory=dict)
    _brought: dict[tuple[MemoryKind, str], int] = field(default_factory=dict)

    def loaded(self, agent: str, computed: int) -> None:
        """A load for the agent has ended in which the engine computed so many tokens."""
        if agent not in self._open:
            self.prefetches += 1
        self._open[agent] = self._open.get(agent, 0) + computed
        self.tokens += computed

    def brought(self, step: Step) -> None:
        """A load is done. What it brought in is unused yet."""
        what = step.kind, step.key
        before = self._brought.get(what, 0)
        self.reloads[step.kind] += step.start < before
        self._brought[what] = max(before, step.stop)
        if len(self._brought) > MOST_BROUGHT:
            del self._brought[next(iter(self._brought))]

    def used_up(self, kind: MemoryKind, key: str) -> None:
        """An item was used, or is gone for good: to load it once more is no churn."""
        self._brought.pop((kind, key), None)

    def restarted(self) -> None:
        """The engine lost everything: to load it once more is no churn."""
        self._brought.clear()

    def called(self, prefix: int, resident: int) -> None:
        """An agent calls with a prefix of so many tokens, and finds that many of them on the device."""
        self.prefix_tokens += prefix
        self.found_tokens += min(resident, prefix)

    def invoked(self, agent: str, resident: int) -> None:
        """The agent calls, and finds so many tokens of its prefix on the device."""
        self.used_up(MemoryKind.PREFIX_KV, agent)
        computed = self._open.pop(agent, None)
        if computed is None:
            return
        self.tokens_wasted += max(0, computed - resident)
        if resident:
            self.used += 1
        else:
            self.wasted += 1

    @property
    def pending(self) -> tuple[int, int]:
        """Prefetches whose agent hasn't called yet, and their tokens."""
        return len(self._open), sum(self._open.values())
