"""Sessions that an engine serves and of which no stream speaks: they come without end. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container

MOST_STRANGERS = 500
"""A session may become an agent's later, when its stream is heard: then it is good to know its prefix."""


class Strangers:
    """The sessions that are none of the `agents`, in the order in which they were last served."""

    def __init__(self, agents: Container[str]) -> None:
        self._agents = agents
        self._served: OrderedDict[str, None] = OrderedDict()

    def served(self, session: str) -> str | None:
        """A request of a session was served; return the stranger that is to be forgotten for it, if any."""
        self._served.pop(session, None)
        if session in self._agents:
            return None
        self._served[session] = None
        if len(self._served) <= MOST_STRANGERS:
            return None
        oldest, _ = self._served.popitem(last=False)
        return None if oldest in self._agents else oldest
