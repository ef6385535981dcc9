"""News that travels through the village: each item has a graph of who tells whom, and a pace."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from scalesim_client.events import PathDeclared


@dataclass(slots=True)
class News:
    """One item. `teller` is who learns it first, once `born` has passed; one hop takes `hop` steps.

    `reached` holds when each agent heard it, and `expected` when the next ones will.
    """

    name: str
    teller: str
    born: int
    hop: int
    edges: tuple[tuple[str, str], ...]
    reached: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    _listeners: dict[str, list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for source, target in self.edges:
            self._listeners.setdefault(source, []).append(target)

    def declaration(self) -> PathDeclared:
        """Return the event that tells the graph."""
        return PathDeclared(path=self.name, edges=list(self.edges), hop=float(self.hop))

    def reach(self, agent: str, now: int) -> None:
        """Let `agent` hear it at `now`; those whom it tells will hear it one hop later."""
        self.reached[agent] = now
        self.expected.pop(agent, None)
        for target in self._listeners.get(agent, ()):
            if target not in self.reached:
                self.expected.setdefault(target, now + self.hop)

    def arriving(self, now: int) -> list[str]:
        """Return who hears it at `now`."""
        return [agent for agent, due in self.expected.items() if due <= now]


def spread_news(agents: list[str], items: int, listeners: int, every: int, rng: Random) -> list[News]:
    """Draw `items` items, born `every` steps apart; each reaches `listeners` agents along a binary tree."""
    news = []
    for number in range(items):
        chain = rng.sample(agents, listeners + 1)
        edges = tuple((chain[child // 2 - 1], chain[child - 1]) for child in range(2, len(chain) + 1))
        born = 1 + number * every
        news.append(News(f"news-{number + 1}", chain[0], born, rng.choice((2, 3)), edges))
    return news
