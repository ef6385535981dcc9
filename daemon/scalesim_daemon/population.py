"""All agents of all simulations: what their streams said, when they are due, what memory is theirs. Pure."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scalesim_client.events import (
    AgentReleased,
    AgentWoken,
    Event,
    InvocationFinished,
    InvocationStarted,
    MemoryBound,
    MemoryUnbound,
    StepAdvanced,
)
from scalesim_daemon.board import Due, DueBoard, overdue_after
from scalesim_daemon.clock import StreamClock
from scalesim_daemon.gate import Admitted, Closed, Opened, Restated, Said, Stream
from scalesim_estimators import Blend, Foretold, Quality, default_estimators

# What changes more of an agent than its due.
_NOTED = frozenset({InvocationStarted, InvocationFinished, AgentWoken, MemoryBound, MemoryUnbound})
# Four times as long as a publisher waits before it says its state again.
SILENT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What an agent bound: a LoRA by directory and served name, and a prompt prefix in one of three forms."""

    lora: str | None = None
    lora_name: str | None = None
    token_ids: array[int] | None = None
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    cache_salt: str | None = None
    model: str | None = None


@dataclass(slots=True)
class Agent:
    """One agent, addressed as `<simulation>/<agent>`. `recency` grows with each invocation; 0 is never."""

    key: str
    in_flight: int = 0
    recency: int = 0
    invocations: int = 0
    memory: Memory | None = None


@dataclass(slots=True)
class Changes:
    """What happened since it was last taken; agents by key, in order. What is `bound_again` is as it was, but for the
    content of a LoRA's files, maybe."""

    dues: set[str] = field(default_factory=set)
    clocks: set[str] = field(default_factory=set)
    started: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    woken: list[str] = field(default_factory=list)
    bound: list[str] = field(default_factory=list)
    bound_again: list[str] = field(default_factory=list)
    unbound: list[str] = field(default_factory=list)
    unused_loras: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Voice:
    """One stream's part: its clock, its estimators, and the agents that it has spoken of; of these, those
    with requests `in_flight`, and those whose `memory` it has bound. `tells_calls` once it has told of one."""

    stream: Stream
    clock: StreamClock
    blend: Blend
    agents: set[str] = field(default_factory=set)
    in_flight: Counter[str] = field(default_factory=Counter)
    memory: set[str] = field(default_factory=set)
    heard: float = 0.0
    tells_calls: bool = False


class Population:
    """Turns admitted events into dues and memory, per stream; `wall` is the wall time in seconds."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self.board = DueBoard()
        self._voices: dict[str, _Voice] = {}
        self._changes = Changes()
        self._recency = 0
        self._watches: list[set[str]] = []
        self.loras: dict[str, dict[str, None]] = {}
        """Per LoRA the agents that have bound it."""

    def take_changes(self) -> Changes:
        """Return what changed since the last call."""
        changes, self._changes = self._changes, Changes()
        for watch in self._watches:
            watch.update(changes.dues, changes.started)
        return changes

    def binds(self, lora: str) -> bool:
        """Whether an agent has bound a LoRA since changes were last taken."""
        agents = self.loras.get(lora, {})
        changes = self._changes
        return bool(agents) and any(key in agents for key in (*changes.bound, *changes.bound_again))

    def knows(self, key: str) -> bool:
        """Whether a stream speaks of the agent, or foresees it."""
        return key in self.agents or self.board.get(key) is not None

    def watch(self) -> set[str]:
        """Return a set into which come, whenever changes are taken, all agents whose due or last call has changed. Who
        reads it empties it."""
        watch: set[str] = set()
        self._watches.append(watch)
        return watch

    def clocks(self) -> dict[str, tuple[Stream, StreamClock]]:
        """Return each source's stream and clock."""
        return {source: (voice.stream, voice.clock) for source, voice in self._voices.items()}

    def sources(self, simulation: str) -> dict[str, bool]:
        """Return the sources that speak for a simulation, and whether each has ever told of an invocation."""
        return {
            source: voice.tells_calls
            for source, voice in self._voices.items()
            if voice.stream.simulation == simulation
        }

    def qualities(self) -> dict[str, Quality]:
        """Return how well each source's estimates foretell its invocations."""
        return {source: voice.blend.quality for source, voice in self._voices.items()}

    def foreseen_by(self, source: str) -> dict[str, float]:
        """Return the names of the agents of which a source expects an invocation, each with its due."""
        voice = self._voices.get(source)
        dues = ((key, self.board.told_by(source, key)) for key in (() if voice is None else voice.agents))
        return {key.partition("/")[2]: due.estimate.due for key, due in dues if due is not None}

    def in_flight(self) -> int:
        """Return how many announced invocations are being served now."""
        return sum(voice.in_flight.total() for voice in self._voices.values())

    def apply(self, admitted: Iterable[Admitted], wall: float) -> None:
        """Take in what the gate admitted."""
        for item in admitted:
            match item:
                case Opened(stream):
                    self._close(stream.source)
                    self._open(stream)
                case Said(stream, events):
                    voice = self._voices.get(stream.source) or self._open(stream)
                    for event in events:
                        self._observe(voice, event, wall)
                case Restated(stream, events, now):
                    self._restate(stream, events, now, wall)
                case Closed(stream):
                    self._close(stream.source)
                    if all(voice.stream.simulation != stream.simulation for voice in self._voices.values()):
                        self._changes.closed.append(stream.simulation)
            heard = self._voices.get(item.stream.source)
            if heard is not None:
                heard.heard = wall

    def give_up_silent(self, wall: float) -> None:
        """Take the requests of sources that have been silent for long as ended: what would tell their end was lost."""
        for voice in self._voices.values():
            if voice.in_flight and wall - voice.heard > SILENT_SECONDS:
                self._compare_in_flight(voice.in_flight, Counter())
                for key, count in voice.in_flight.items():
                    self.agents[key].in_flight -= count
                voice.in_flight.clear()

    def _open(self, stream: Stream, earlier: Blend | None = None) -> _Voice:
        blend = Foretold(stream.clock) if stream.teller else default_estimators(stream.clock, earlier)
        voice = self._voices[stream.source] = _Voice(stream, StreamClock(stream.clock), blend)
        return voice

    def _restate(
        self, stream: Stream, events: Iterable[tuple[Event, float | None]], now: float | None, wall: float
    ) -> None:
        old = self._voices.get(stream.source)
        voice = self._open(stream, old.blend if old else None)
        if old is not None:
            voice.clock, voice.tells_calls = old.clock, old.tells_calls
        if now is not None:
            if not voice.clock.advance(now, wall):
                voice.blend = default_estimators(stream.clock)
                voice.clock = voice.clock.begun_anew()
            self._changes.clocks.add(stream.source)
        for event, said_at in events:
            self._observe(voice, event, wall, said_at=said_at, restated=True)
        self._compare_in_flight(old.in_flight if old else Counter(), voice.in_flight)
        if old is not None:
            self._retract(old, keep=voice)

    def _close(self, source: str) -> None:
        voice = self._voices.pop(source, None)
        if voice is not None:
            self._retract(voice, keep=None)

    def _retract(self, voice: _Voice, keep: _Voice | None) -> None:
        """Undo what a voice said and its successor `keep` no longer says."""
        if keep is None:
            self._compare_in_flight(voice.in_flight, Counter())
        for key, count in voice.in_flight.items():
            # A snapshot may have released the agent.
            if key in self.agents:
                self.agents[key].in_flight -= count
        for key in voice.agents:
            if keep is not None and key in keep.agents:
                self._estimate(keep, key)
            else:
                voice.blend.forget(key.partition("/")[2])
                self._unsay(voice, key)
        for key in voice.memory:
            self._unbind_if_unsaid(key)

    def _compare_in_flight(self, before: Counter[str], after: Counter[str]) -> None:
        """Report the requests whose start or end was missed."""
        self._changes.started.extend((after - before).elements())
        self._changes.finished.extend((before - after).elements())

    def _unsay(self, voice: _Voice, key: str) -> None:
        """The voice no longer speaks of the agent; when none does, it is gone."""
        self.board.put(key, voice.stream.source, None)
        self._changes.dues.add(key)
        if not any(key in other.agents for other in self._voices.values()) and key in self.agents:
            self._remember(self.agents[key], None)
            del self.agents[key]
            self._changes.unbound.append(key)

    def _unbind_if_unsaid(self, key: str) -> None:
        agent = self.agents.get(key)
        if (
            agent is None
            or agent.memory is None
            or any(key in other.memory for other in self._voices.values())
        ):
            return
        self._remember(agent, None)
        self._changes.unbound.append(key)

    def _observe(
        self,
        voice: _Voice,
        event: Event,
        wall: float,
        *,
        said_at: float | None = None,
        restated: bool = False,
    ) -> None:
        if isinstance(event, StepAdvanced):
            if not voice.clock.advance(event.now, wall):
                self._rewind(voice)
            for late in voice.blend.lapsed(voice.clock.now - overdue_after(voice.clock)):
                self._estimate(voice, f"{voice.stream.simulation}/{late}", late)
            self._changes.clocks.add(voice.stream.source)
            return
        now = voice.clock.now if said_at is None else min(said_at, voice.clock.now)
        simulation = voice.stream.simulation
        name, key = getattr(event, "agent", None), ""
        if name is not None:
            key = f"{simulation}/{name}"
            if isinstance(event, AgentReleased):
                self._release(voice, event, key, now)
                return
            key = self._note(voice, event, key, restated)
            if isinstance(event, InvocationStarted) and not restated:
                self._score(voice, event.agent, now)
        for changed in voice.blend.observe(event, now):
            if changed is name:
                self._estimate(voice, key, changed)
                continue
            self._foresee(voice, f"{simulation}/{changed}", changed)

    def _foresee(self, voice: _Voice, key: str, name: str) -> None:
        """An event has changed what is to be expected of somebody else, of whom maybe nobody speaks any more."""
        self._estimate(voice, key, name)
        if key in self.agents or self.board.told_by(voice.stream.source, key) is not None:
            voice.agents.add(key)
        else:
            voice.agents.discard(key)
            voice.blend.forget(name)

    def _score(self, voice: _Voice, agent: str, now: float) -> None:
        """An invocation shows how good the estimates were, and so perhaps that others are better."""
        for changed in voice.blend.quality.invoked(agent, now, voice.clock.step):
            self._estimate(voice, f"{voice.stream.simulation}/{changed}", changed)

    def _note(self, voice: _Voice, event: Event, key: str, restated: bool) -> str:
        """Take in what an event says of an agent's calls and memory; return the one string that all use as its key."""
        agent = self.agents.get(key)
        if agent is None:
            agent = self.agents[key] = Agent(key)
        key = agent.key
        voice.agents.add(key)
        if type(event) not in _NOTED:
            return key
        match event:
            case InvocationStarted():
                voice.tells_calls = True
                voice.in_flight[key] += 1
                agent.in_flight += 1
                if not restated:
                    self._recency += 1
                    agent.recency = self._recency
                    agent.invocations += 1
                    self._changes.started.append(key)
            case InvocationFinished() if voice.in_flight[key]:
                voice.in_flight[key] -= 1
                if not voice.in_flight[key]:
                    del voice.in_flight[key]
                agent.in_flight -= 1
                self._changes.finished.append(key)
            case AgentWoken():
                self._changes.woken.append(key)
            case MemoryBound():
                voice.memory.add(key)
                self._bind(agent, event, restated)
            case MemoryUnbound():
                voice.memory.discard(key)
                self._unbind_if_unsaid(key)
        return key

    def _bind(self, agent: Agent, event: MemoryBound, restated: bool) -> None:
        memory = Memory(
            event.lora,
            event.lora_name,
            None if event.token_ids is None else array("I", event.token_ids),
            event.text,
            None if event.messages is None else tuple(event.messages),
            event.cache_salt,
            None if event.model is None else sys.intern(event.model),
        )
        if memory != agent.memory:
            self._remember(agent, memory)
            self._changes.bound.append(agent.key)
        elif not restated:
            self._changes.bound_again.append(agent.key)

    def _remember(self, agent: Agent, memory: Memory | None) -> None:
        """Let this be the agent's memory, and be found by its LoRA."""
        before = None if agent.memory is None else agent.memory.lora_name
        now = None if memory is None else memory.lora_name
        agent.memory = memory
        if now == before:
            return
        if before is not None:
            del self.loras[before][agent.key]
            if not self.loras[before]:
                del self.loras[before]
        if now is not None:
            self.loras.setdefault(now, {})[agent.key] = None

    def _release(self, voice: _Voice, event: AgentReleased, key: str, now: float) -> None:
        memory = self.agents[key].memory if key in self.agents else None
        for changed in voice.blend.observe(event, now):
            if changed != event.agent:
                self._estimate(voice, f"{voice.stream.simulation}/{changed}", changed)
        voice.blend.forget(event.agent)
        voice.agents.discard(key)
        running = voice.in_flight.pop(key, 0)
        if running:
            self.agents[key].in_flight -= running
            self._changes.finished.extend([key] * running)
        self._unsay(voice, key)
        if key in voice.memory:
            voice.memory.remove(key)
            self._unbind_if_unsaid(key)
        lora = None if memory is None else memory.lora_name
        if lora is not None and key not in self.agents and lora not in self.loras:
            self._changes.unused_loras.append(lora)

    def _estimate(self, voice: _Voice, key: str, name: str | None = None) -> None:
        name = key.partition("/")[2] if name is None else name
        clock = voice.clock
        estimate = voice.blend.renew(name, clock.now, clock.now - overdue_after(clock))
        due = None if estimate is None else Due(estimate, clock)
        if self.board.put(key, voice.stream.source, due):
            self._changes.dues.add(key)

    def _rewind(self, voice: _Voice) -> None:
        """The clock went back: the simulation starts over, its dues are void; its memory is not."""
        voice.blend = default_estimators(voice.stream.clock)
        voice.clock = voice.clock.begun_anew()
        for key in voice.agents:
            self.board.put(key, voice.stream.source, None)
            self._changes.dues.add(key)
