"""All agents of all simulations: what their streams said, when they are due, what memory is theirs. Pure."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

from msgspec import Struct

from scalesim_client.events import (
    EVENT_TYPES,
    AgentEvent,
    AgentReleased,
    AgentWoken,
    Event,
    InvocationFinished,
    InvocationStarted,
    MemoryBound,
    MemoryUnbound,
    StepAdvanced,
)
from scalesim_daemon.agents import Agent, Changes, Memory
from scalesim_daemon.board import DueBoard, Place, overdue_after
from scalesim_daemon.clock import StreamClock
from scalesim_daemon.gate import Admitted, Closed, Opened, Restated, Said, Stream, joined
from scalesim_daemon.memories import Memories, memory_bound
from scalesim_daemon.voice import Voice
from scalesim_estimators import Blend, Estimate, Foretold, Quality, default_estimators

__all__ = ["SILENT_SECONDS", "Agent", "Changes", "Memory", "Population"]

# What changes more of an agent than its due, by its name on the wire: a reader may have classes of its own.
_NOTED = frozenset(
    kind.type for kind in (InvocationStarted, InvocationFinished, AgentWoken, MemoryBound, MemoryUnbound)
)
_OF_AGENTS = frozenset(kind.type for kind in EVENT_TYPES.values() if issubclass(kind, AgentEvent))
# Four times as long as a publisher waits before it says its state again.
SILENT_SECONDS = 120.0
RENEWED_AT_ONCE = 1000
"""Dues of agents that nothing was said of which are renewed until changes are taken, as each cycle does: about 10 us
each, and urgent calls wait meanwhile."""


class Population:
    """Turns admitted events into dues and memory, per stream; `wall` is the wall time in seconds."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self.board = DueBoard()
        self.memories = Memories()
        self._voices: dict[str, Voice] = {}
        self._changes = Changes()
        self._recency = 0
        self._watches: list[set[str]] = []
        self._behind: dict[str, None] = {}
        """Sources of which dues are still to be renewed."""
        self._room = RENEWED_AT_ONCE
        """How many of them may be renewed until changes are taken."""

    def take_changes(self) -> Changes:
        """Return what changed since the last call."""
        changes, self._changes = self._changes, Changes()
        self._room = RENEWED_AT_ONCE
        for watch in self._watches:
            watch.update(changes.dues, changes.started)
        return changes

    @property
    def pressing(self) -> bool:
        """Whether more than dues and clocks has changed since changes were last taken."""
        return self._changes.pressing

    def binds(self, lora: str) -> bool:
        """Whether an agent has bound a LoRA since changes were last taken."""
        agents = self.memories.loras.get(lora, {})
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

    def foreseen_by(self, source: str) -> Iterator[tuple[str, float]]:
        """Yield the names of the agents of which a source expects an invocation, each with its due, whatever changes
        meanwhile."""
        voice = self._voices.get(source)
        for name, key in [] if voice is None else list(voice.everybody()):
            due = self.board.told_by(source, key)
            if due is not None:
                yield name, due.at

    def in_flight(self) -> int:
        """Return how many announced invocations are being served now."""
        return sum(voice.in_flight.total() for voice in self._voices.values())

    @property
    def behind(self) -> bool:
        """Whether dues are still to be renewed: another `apply` goes on with that."""
        return bool(self._behind)

    def apply(self, admitted: Iterable[Admitted], wall: float) -> None:
        """Take in what the gate admitted. An agent's due is renewed once, whatever was said of it.

        Of the agents that this changes though nothing was said of them, as by another's move, a plan, a path, a verdict
        on an estimator or a snapshot, and of those whose due has lapsed, 1,000 are renewed until changes are taken, and
        as many each time after that, those first that have waited longest.
        """
        heard: dict[str, None] = {}
        for item in joined(admitted):
            stream = item.stream
            source = stream.source
            heard[source] = None
            match item:
                case Said():
                    self._observe(self._voices.get(source) or self._open(stream), item.events, wall)
                case Opened():
                    self._close(source)
                    self._open(stream)
                case Restated():
                    self._restate(stream, item.events, item.now, wall)
                case Closed():
                    self._close(source)
                    if all(voice.stream.simulation != stream.simulation for voice in self._voices.values()):
                        self._changes.closed.append(stream.simulation)
        for source in heard:
            if source in self._voices:
                self._voices[source].heard = wall
                self._behind.setdefault(source)
        for place, source in enumerate(list(self._behind)):
            if self._room or source in heard:
                self._go_on(self._voices[source], first=place == 0)

    def give_up_silent(self, wall: float) -> None:
        """Take the requests of sources that have been silent for long as ended: what would tell their end was lost."""
        for voice in self._voices.values():
            if voice.in_flight and wall - voice.heard > SILENT_SECONDS:
                self._compare_in_flight(voice.in_flight, Counter())
                for key, count in voice.in_flight.items():
                    self.agents[key].in_flight -= count
                voice.in_flight.clear()

    def _open(self, stream: Stream, earlier: Blend | None = None) -> Voice:
        blend = Foretold(stream.clock) if stream.teller else default_estimators(stream.clock, earlier)
        voice = Voice(stream, StreamClock(stream.clock), blend, (stream.source,))
        self._voices[stream.source] = voice
        return voice

    def _restate(
        self, stream: Stream, events: Iterable[tuple[Event, float | None]], now: float | None, wall: float
    ) -> None:
        old = self._voices.get(stream.source)
        if old is not None:
            self._renew(old)
        voice = self._open(stream, old.blend if old else None)
        if old is not None:
            self._disclaim(old)
            voice.clock, voice.tells_calls = old.clock, old.tells_calls
        if now is not None:
            if not voice.clock.advance(now, wall):
                voice.blend = default_estimators(stream.clock)
                voice.clock = voice.clock.begun_anew()
            self._changes.clocks.add(stream.source)
        for event, said_at in events:
            self._observe(voice, (event,), wall, said_at=said_at, restated=True)
        unsaid = voice.blend.all_said(voice.clock.now)
        voice.later, voice.changed = dict.fromkeys((*voice.changed, *voice.later, *unsaid)), {}
        self._compare_in_flight(old.in_flight if old else Counter(), voice.in_flight)
        if old is not None:
            self._retract(old, keep=voice)

    def _close(self, source: str) -> None:
        voice = self._voices.pop(source, None)
        self._behind.pop(source, None)
        if voice is not None:
            self._disclaim(voice)
            self._retract(voice, keep=None)

    def _retract(self, voice: Voice, keep: Voice | None) -> None:
        """Undo what a voice said and its successor `keep` no longer says."""
        if keep is None:
            self._compare_in_flight(voice.in_flight, Counter())
        for key, count in voice.in_flight.items():
            # A snapshot may have released the agent.
            if key in self.agents:
                self.agents[key].in_flight -= count
        for name, key in voice.everybody():
            if keep is not None and (keep.knows(name, key) or name in voice.foreseen):
                # Whether it still foresees whom it doesn't speak of is known when its estimators are asked.
                keep.foresee_still(name, key)
            else:
                voice.blend.forget(name)
                self._unsay(voice, key)
            self._unbind_if_unsaid(key)

    def _disclaim(self, voice: Voice) -> None:
        """What a voice has bound is its no longer; whether it stays bound is seen later."""
        for _, key in voice.everybody():
            if key in self.agents:
                self.agents[key].disclaim(voice.itself)

    def _compare_in_flight(self, before: Counter[str], after: Counter[str]) -> None:
        """Report the requests whose start or end was missed."""
        self._changes.started.extend((after - before).elements())
        self._changes.finished.extend((before - after).elements())

    def _unsay(self, voice: Voice, key: str) -> None:
        """The voice no longer speaks of the agent; when none does, it is gone."""
        self.board.put(self._place(key), voice.stream.source, None)
        self._changes.dues.add(key)
        name = key.partition("/")[2]
        if key in self.agents and not any(other.knows(name, key) for other in self._voices.values()):
            self.memories.give(self.agents[key], None)
            del self.agents[key]
            self._changes.unbound.append(key)

    def _unbind_if_unsaid(self, key: str) -> None:
        agent = self.agents.get(key)
        if agent is None or agent.memory is None or agent.bound_by:
            return
        self.memories.give(agent, None)
        self._changes.unbound.append(key)

    def _observe(
        self,
        voice: Voice,
        events: Iterable[Event],
        wall: float,
        *,
        said_at: float | None = None,
        restated: bool = False,
    ) -> None:
        """Take events in, in order, by runs of one type: what is the same for each is done once. Whose due they may
        change is noted: nobody looks between two of a message."""
        now = voice.clock.now if said_at is None else min(said_at, voice.clock.now)
        runs: Iterator[tuple[type[Event], Iterator[Event]]] = groupby(events, type)
        for kind, together in runs:
            run = list(together)
            if kind.type == StepAdvanced.type:
                for event in run:
                    now = self._advance(voice, event, wall)
            elif kind.type == AgentReleased.type:
                for event in run:
                    self._release(voice, event, now)
            else:
                names, agents = self._spoken_of(voice, kind, run) if kind.type in _OF_AGENTS else ([], [])
                self._hear_of(voice, kind, run, agents, now, restated)
                named = voice.blend.listen(kind, run, now)
                if named == names:
                    # As where activities start: each event of them has another due.
                    voice.changed.update(zip(names, agents, strict=True))
                else:
                    voice.note_changed(named, dict(zip(names, agents, strict=True)))

    def _spoken_of(
        self, voice: Voice, kind: type[Event], run: Sequence[Any]
    ) -> tuple[list[str], list[Agent]]:
        """Return the name and the agent of each event of a run, which has that very name from now on. Who is spoken of
        for the first time is met."""
        known = voice.agents.get
        agents = [known(event.agent) or self._meet(voice, event.agent) for event in run]
        names = [agent.name for agent in agents]
        if issubclass(kind, Struct):
            # Whoever keeps something by an agent's name keeps the same string.
            for event, name in zip(run, names, strict=True):
                event.agent = name
        return names, agents

    def _hear_of(
        self,
        voice: Voice,
        kind: type[Event],
        run: Sequence[Any],
        agents: Sequence[Agent],
        now: float,
        restated: bool,
    ) -> None:
        """Take in what a run of events says of agents, but for when they are due."""
        if kind.type in _NOTED:
            for event, agent in zip(run, agents, strict=True):
                self._note(voice, event, agent, restated)
        if kind.type == InvocationStarted.type and not restated:
            # How good the estimates were is known now, and so perhaps that others are better.
            invoked, step = voice.blend.quality.invoked, voice.clock.step
            for agent in agents:
                invoked(agent.name, now, step)

    def _advance(self, voice: Voice, event: Any, wall: float) -> float:
        """Let the voice's clock go on; return what it shows."""
        self._renew(voice)
        clock = voice.clock
        if not clock.advance(event.now, wall):
            self._rewind(voice)
        voice.later.update(
            dict.fromkeys(voice.blend.lapsed(clock.now - overdue_after(clock), RENEWED_AT_ONCE))
        )
        self._changes.clocks.add(voice.stream.source)
        return clock.now

    def _meet(self, voice: Voice, name: str) -> Agent:
        """The voice speaks of an agent for the first time. Return it."""
        key = voice.foreseen.pop(name, None) or f"{voice.stream.simulation}/{name}"
        agent = self.agents.get(key)
        if agent is None:
            agent = self.agents[key] = Agent(key, name=sys.intern(name))
            self.board.seat(agent)
        voice.agents[agent.name] = agent
        return agent

    def _place(self, key: str) -> Place:
        return self.agents.get(key) or self.board.place(key)

    def _key(self, voice: Voice, name: str) -> str:
        agent = voice.agents.get(name)
        if agent is not None:
            return agent.key
        return voice.foreseen.get(name) or f"{voice.stream.simulation}/{name}"

    def _note(self, voice: Voice, event: Any, agent: Agent, restated: bool) -> None:
        """Take in what an event says of an agent's calls and memory."""
        key = agent.key
        match event.type:
            case InvocationStarted.type:
                voice.tells_calls = True
                voice.in_flight[key] += 1
                agent.in_flight += 1
                if not restated:
                    self._recency += 1
                    agent.recency = self._recency
                    agent.invocations += 1
                    self._changes.started.append(key)
            case InvocationFinished.type if voice.in_flight[key]:
                voice.in_flight[key] -= 1
                if not voice.in_flight[key]:
                    del voice.in_flight[key]
                agent.in_flight -= 1
                self._changes.finished.append(key)
            case AgentWoken.type:
                self._changes.woken.append(key)
            case MemoryBound.type:
                agent.claim(voice.itself)
                self._bind(agent, memory_bound(event), restated)
            case MemoryUnbound.type:
                agent.disclaim(voice.itself)
                self._unbind_if_unsaid(key)

    def _bind(self, agent: Agent, memory: Memory, restated: bool) -> None:
        if self.memories.bind(agent, memory):
            self._changes.bound.append(agent.key)
            self._changes.bound.extend(self.memories.make_room(self.agents.values()))
        elif not restated:
            self._changes.bound_again.append(agent.key)

    def _release(self, voice: Voice, event: Any, now: float) -> None:
        name = event.agent
        key = self._key(voice, name)
        memory = self.agents[key].memory if key in self.agents else None
        voice.later.update(dict.fromkeys(voice.blend.observe(event, now)))
        voice.changed.pop(name, None)
        voice.later.pop(name, None)
        voice.blend.forget(name)
        voice.forget(name)
        running = voice.in_flight.pop(key, 0)
        if running:
            self.agents[key].in_flight -= running
            self._changes.finished.extend([key] * running)
        self._unsay(voice, key)
        if key in self.agents:
            self.agents[key].disclaim(voice.itself)
            self._unbind_if_unsaid(key)
        lora = None if memory is None else memory.lora_name
        if lora is not None and key not in self.agents and lora not in self.memories.loras:
            self._changes.unused_loras.append(lora)

    def _renew(self, voice: Voice) -> None:
        """Put on the board what the voice's estimators say now of the agents that have changed."""
        spoken_of, voice.changed, later = voice.changed, {}, voice.later
        for name in spoken_of if later else ():
            later.pop(name, None)
        waited = list(islice(later, self._room))
        self._room -= len(waited)
        for name in waited:
            del later[name]
        names = [*spoken_of, *waited]
        if not names:
            return
        clock = voice.clock
        estimates = voice.blend.renew(names, clock.now, clock.now - overdue_after(clock))
        places: list[Place] = [
            *spoken_of.values(),
            *(
                voice.agents.get(name) or self._foresee(voice, name, estimate)
                for name, estimate in zip(waited, estimates[len(spoken_of) :], strict=True)
            ),
        ]
        self._changes.dues.update(self.board.put_all(places, voice.stream.source, voice.dues(estimates)))

    def _go_on(self, voice: Voice, *, first: bool) -> None:
        """Renew what is to be renewed at once, and as many others as there is room for. Only the estimators of who is
        `first` work at what they have left to do: who is still behind then is first again after all others."""
        earliest, source = voice.clock.now - overdue_after(voice.clock), voice.stream.source
        had_turn = first and bool(self._room)
        behind = voice.blend.behind(earliest)
        if behind and first and len(voice.later) < self._room:
            voice.later.update(dict.fromkeys(voice.blend.go_on(earliest, self._room)))
            behind = voice.blend.behind(earliest)
        self._renew(voice)
        if not voice.later and not behind:
            del self._behind[source]
        elif had_turn:
            self._behind[source] = self._behind.pop(source)

    def _foresee(self, voice: Voice, name: str, estimate: Estimate | None) -> Place:
        """Something has changed what is to be expected of an agent of which the voice doesn't speak, and maybe nobody
        does any more. Return its place on the board."""
        key = self._key(voice, name)
        if estimate is not None:
            voice.foreseen[name] = key
            return self._place(key)
        voice.blend.forget(name)
        if voice.foreseen.pop(name, None) is not None:
            self._unsay(voice, key)
        return self._place(key)

    def _rewind(self, voice: Voice) -> None:
        """The clock went back: the simulation starts over, its dues are void; its memory is not."""
        voice.blend = default_estimators(voice.stream.clock)
        voice.clock = voice.clock.begun_anew()
        voice.changed.clear()
        voice.later.clear()
        foreseen, voice.foreseen = voice.foreseen, {}
        for agent in voice.agents.values():
            self.board.put(agent, voice.stream.source, None)
            self._changes.dues.add(agent.key)
        for key in foreseen.values():
            self._unsay(voice, key)
