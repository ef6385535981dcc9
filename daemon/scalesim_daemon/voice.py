"""One stream's part in the population."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from scalesim_daemon.agents import Agent
from scalesim_daemon.board import Due, Dues
from scalesim_daemon.clock import StreamClock
from scalesim_daemon.gate import Stream
from scalesim_estimators import Blend, Estimate


@dataclass(slots=True)
class Voice:
    """One stream's part: its clock, its estimators, and the agents that it has spoken of, by name; of these, the keys
    of those with requests `in_flight`. `itself` are the sources that it is: one. `tells_calls` once it has told
    of one. Others are `foreseen` though it has said nothing of them but in a plan or a path. Of those that have
    `changed` the dues are renewed before anybody looks, or the clock goes on. Those that something has changed that
    wasn't said of them are renewed `later`, in turns."""

    stream: Stream
    clock: StreamClock
    blend: Blend
    itself: tuple[str, ...]
    agents: dict[str, Agent] = field(default_factory=dict)
    foreseen: dict[str, str] = field(default_factory=dict)
    changed: dict[str, Agent] = field(default_factory=dict)
    later: dict[str, None] = field(default_factory=dict)
    in_flight: Counter[str] = field(default_factory=Counter)
    heard: float = 0.0
    tells_calls: bool = False
    _dues: Dues | None = None

    def everybody(self) -> Iterator[tuple[str, str]]:
        """Yield the names and keys of all that it has to do with."""
        return chain(((name, agent.key) for name, agent in self.agents.items()), self.foreseen.items())

    def knows(self, name: str, key: str) -> bool:
        """Whether it has to do with an agent: another simulation's may have the same name."""
        agent = self.agents.get(name)
        return key == (self.foreseen.get(name) if agent is None else agent.key)

    def foresee_still(self, name: str, key: str) -> None:
        """Have what holds of an agent looked at again, in its turn."""
        if name not in self.agents:
            self.foreseen[name] = key
        self.later[name] = None

    def note_changed(self, named: Collection[str], spoken_of: Mapping[str, Agent]) -> None:
        """Have what holds of the agents that are named looked at again: of those of which something was said before
        anybody looks, of others in their turn."""
        for name in named:
            if name in spoken_of:
                self.changed[name] = spoken_of[name]
            else:
                self.later[name] = None

    def forget(self, name: str) -> None:
        """Drop an agent that has gone. Why others are due may name it, too."""
        self.agents.pop(name, None)
        self.foreseen.pop(name, None)
        self._dues = None

    def dues(self, estimates: Sequence[Estimate | None]) -> list[Due | None]:
        """Return the dues that these estimates are on its clock."""
        if self._dues is None or self._dues.clock is not self.clock:
            self._dues = Dues(self.clock, self.stream.source)
        return list(map(self._dues.__getitem__, estimates))
