"""What became of the prefetches: used by the invocation that they were for, or wasted. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Ledger:
    """Counts prefetches (one per agent and invocation, however many chunks) and the tokens computed."""

    prefetches: int = 0
    used: int = 0
    wasted: int = 0
    tokens: int = 0
    tokens_wasted: int = 0
    touches: int = 0
    cancelled: int = 0
    failed: int = 0
    _open: dict[str, int] = field(default_factory=dict)

    def loaded(self, agent: str, computed: int) -> None:
        """A load for the agent has ended in which the engine computed so many tokens."""
        if agent not in self._open:
            self.prefetches += 1
        self._open[agent] = self._open.get(agent, 0) + computed
        self.tokens += computed

    def invoked(self, agent: str, resident: int) -> None:
        """The agent calls, and finds so many tokens of its prefix on the device."""
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
