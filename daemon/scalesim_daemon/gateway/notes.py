"""Invocations as the gateway sees them, for the estimators: a source of its own per simulation, in wall seconds."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from dataclasses import dataclass
from time import monotonic, time

from scalesim_daemon.loop import Sidecar
from scalesim_daemon.population import Memory

TICK_SECONDS = 1.0
# A simulation that is heard itself may say of a call what we see of it: its word may come a little later.
OWN_WORD_SECONDS = 0.05
# Each telling costs the sidecar a round, for which calls would have to wait: those of such a time share one.
ROUND_SECONDS = 0.01
MOST_UNTOLD = 500
# Beyond that, the agent that called longest ago is forgotten.
MOST_AGENTS = 20_000


@dataclass(slots=True)
class Note:
    """One call: told to the estimators once it `began` there, or `waiting` for its simulation's own word. `model` is
    what it asks for, None where no engine is known to serve that."""

    key: str
    simulation: str
    agent: str
    model: str | None
    began: bool = False
    waiting: asyncio.TimerHandle | None = None


class Notes:
    """Tells the sidecar of calls, unless their simulation tells of its calls itself: then nothing is told twice.

    A call is told a little later, with its own time: it is on its way to its engine by then.
    """

    def __init__(self, sidecar: Sidecar, most_agents: int = MOST_AGENTS) -> None:
        self._sidecar = sidecar
        self._most_agents = most_agents
        self._epoch = time() - monotonic()
        self._agents: OrderedDict[str, None] = OrderedDict()
        self._streams: Counter[str] = Counter()
        """How many agents each simulation has here."""
        self._untold: dict[str, list[dict[str, object]]] = {}

    def started(self, key: str, model: str | None = None) -> Note:
        """An agent's call has come; it ends with `finished`."""
        simulation, agent = key.split("/", 1)
        note = Note(key, simulation, agent, model)
        others = self._others(note.simulation)
        if others and not any(others.values()):
            note.waiting = asyncio.get_running_loop().call_later(OWN_WORD_SECONDS, self._begin, note)
        else:
            self._begin(note)
        return note

    def finished(self, note: Note) -> None:
        """The call has been answered, or has failed."""
        if note.waiting is not None and not note.began:
            note.waiting.cancel()
            self._begin(note)
        if note.began and note.key in self._agents:
            self._say(note.simulation, {"type": "invocation.finished", "agent": note.agent})

    def tell(self) -> None:
        """Tell the sidecar what has happened."""
        if self._untold:
            untold, self._untold = self._untold, {}
            self._sidecar.strangers -= 1
            for simulation, events in untold.items():
                self._sidecar.admit(_source(simulation), None, events)

    async def run(self) -> None:
        """Let the clocks go on until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for simulation in list(self._streams):
                if not self._leave_to_others(simulation):
                    self._say(simulation, self._tick())
            # Nobody calls: speculative work need not wait.
            self.tell()

    def _begin(self, note: Note) -> None:
        if self._leave_to_others(note.simulation):
            return
        note.began = True
        self._remember(note)
        events: list[dict[str, object]] = [self._tick(), {"type": "invocation.started", "agent": note.agent}]
        if self._binds(note):
            events.append({"type": "memory.bound", "agent": note.agent, "model": note.model})
        self._say(note.simulation, *events)

    def _binds(self, note: Note) -> bool:
        """Whether the call tells of its agent's model what isn't known: what it has bound itself stays."""
        known = self._sidecar.population.agents.get(note.key)
        memory = known.memory if known is not None else None
        return note.model is not None and (
            memory is None or (memory != Memory(model=note.model) and memory == Memory(model=memory.model))
        )

    def _leave_to_others(self, simulation: str) -> bool:
        """Whether the simulation tells of its calls itself; what was told here is withdrawn then."""
        if not any(self._others(simulation).values()):
            return False
        if self._streams.pop(simulation, 0):
            self._close(simulation)
            for key in [key for key in self._agents if key.startswith(f"{simulation}/")]:
                del self._agents[key]
        return True

    def _others(self, simulation: str) -> dict[str, bool]:
        """Return the simulation's own sources, and whether each tells of calls."""
        told = self._sidecar.population.sources(simulation)
        told.pop(_source(simulation), None)
        return told

    def _remember(self, note: Note) -> None:
        if note.simulation not in self._streams:
            opened = {"type": "stream.opened", "simulation": note.simulation, "clock": "wall_seconds"}
            self._say(note.simulation, {**opened, "source": _source(note.simulation), "incarnation": 0})
        if note.key not in self._agents:
            self._streams[note.simulation] += 1
        self._agents[note.key] = None
        self._agents.move_to_end(note.key)
        if len(self._agents) > self._most_agents:
            self._forget(self._agents.popitem(last=False)[0])

    def _forget(self, key: str) -> None:
        simulation, agent = key.split("/", 1)
        self._streams[simulation] -= 1
        if self._streams[simulation]:
            self._say(simulation, {"type": "agent.released", "agent": agent})
        else:
            del self._streams[simulation]
            self._close(simulation)

    def _close(self, simulation: str) -> None:
        self._say(simulation, {"type": "stream.closed"})
        # What comes next opens another stream, by which a message begins.
        self.tell()

    def _tick(self) -> dict[str, object]:
        """The time of day, which never goes back here."""
        return {"type": "step.advanced", "now": self._epoch + monotonic()}

    def _say(self, simulation: str, *events: dict[str, object]) -> None:
        if not self._untold:
            # Somebody may be calling of whom the sidecar doesn't know: no speculative work begins meanwhile.
            self._sidecar.strangers += 1
            asyncio.get_running_loop().call_later(ROUND_SECONDS, self.tell)
        untold = self._untold.setdefault(simulation, [])
        untold += events
        if len(untold) >= MOST_UNTOLD:
            self.tell()


def _source(simulation: str) -> str:
    return f"gateway/{simulation}"
