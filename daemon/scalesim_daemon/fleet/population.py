"""The population of a daemon among several: what others' streams say stands beside what its own do. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, cast

from scalesim_client.events import AgentReleased, AgentWoken, Event, InvocationFinished, InvocationStarted
from scalesim_daemon.fleet.words import (
    MOST_CALLS,
    Bound,
    Head,
    Told,
    Word,
    content_of,
    hash_of,
    memory_of,
    plain,
)
from scalesim_daemon.gate import Closed, Stream
from scalesim_daemon.population import Agent, Memory, Population
from scalesim_daemon.voice import Voice
from scalesim_estimators import Blend, Estimate, Foretold

_NOBODY = ("", Bound())


class SharedPopulation(Population):
    """Knows what to tell other daemons, and takes in what they tell; `daemon` is this one.

    The memory of an agent that others speak of is known where `here` says that it is needed: on the daemon that drives
    the agent's engine. Until then it is kept as it was told, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.daemon = ""
        self.here: Callable[[str], bool] = bool
        self.calls: Counter[tuple[str, str]] = Counter()
        """How often an agent has called, by source and agent: what was heard here and isn't told yet."""
        self.woken: dict[tuple[str, str], None] = {}
        self._own: dict[str, dict[str, None]] = {}
        """Per simulation the sources that are heard here."""
        self._hashes: dict[str, tuple[Memory, str | None]] = {}
        self._keys: dict[str, str] = {}
        """Per hash of a content an agent that has it."""
        self._bound: dict[str, tuple[str, Bound]] = {}
        """Per agent whose memory another daemon told: the source here that it came by, and what was told."""
        self.lacking: dict[str, str] = {}
        """Agents whose memory is needed here and whose prefix isn't at hand, each with its content's hash."""

    # What is heard here, for others

    def own_streams(self) -> dict[str, Stream]:
        """Return the streams that are heard here."""
        return {source: self._voices[source].stream for sources in self._own.values() for source in sources}

    def own_sources(self, key: str) -> list[str]:
        """Return the sources heard here that speak of an agent."""
        return [source for source in self.own_of(key.partition("/")[0]) if self.speaks_of(source, key)]

    def speaks_of(self, source: str, key: str) -> bool:
        """Whether a source speaks of an agent."""
        voice = self._voices.get(source)
        return voice is not None and voice.knows(key.partition("/")[2], key)

    def agents_of(self, source: str) -> set[str]:
        """Return the agents that a source speaks of."""
        voice = self._voices.get(source)
        return set() if voice is None else {key for _, key in voice.everybody()}

    def speaks_for(self, simulation: str) -> bool:
        """Whether a source of the simulation is heard here."""
        return simulation in self._own

    def own_of(self, simulation: str) -> Collection[str]:
        """Return the sources of a simulation that are heard here."""
        return self._own.get(simulation, {}).keys()

    def head(self, source: str, whole: bool) -> Head:
        """Return what is to be told of a source."""
        voice = self._voices[source]
        clock, chance = voice.clock, voice.blend.quality.chance()
        return Head(clock.kind, clock.now, clock.pace, clock.step, chance, voice.tells_calls, whole)

    def told(self, source: str, key: str) -> Told | None:
        """Return what is to be told of an agent, None where the source doesn't speak of it."""
        voice = self._voices.get(source)
        if voice is None or not self.speaks_of(source, key):
            return None
        due, running = self.board.told_by(source, key), min(voice.in_flight.get(key, 0), MOST_CALLS)
        agent = self.agents.get(key)
        memory = self._bound_here(key) if agent is not None and source in agent.bound_by else None
        if due is None or not math.isfinite(due.at):
            return Told(in_flight=running, memory=memory)
        return Told(due.at, due.confidence, plain(due.why), running, memory)

    def content(self, wanted: str) -> bytes | None:
        """Return the content with this hash, if it is the prefix of an agent that is heard here."""
        agent = self.agents.get(self._keys.get(wanted, ""))
        content = content_of(agent.memory) if agent is not None and agent.memory is not None else None
        return content if content is not None and hash_of(content) == wanted else None

    def _bound_here(self, key: str) -> Bound | None:
        agent = self.agents.get(key)
        if agent is None or agent.memory is None:
            return None
        memory = agent.memory
        known = self._hashes.get(key)
        if known is None or known[0] is not memory:
            content = content_of(memory)
            self._forget_hash(key)
            known = self._hashes[key] = memory, None if content is None else hash_of(content)
            if known[1] is not None:
                self._keys[known[1]] = key
        lora = None if memory.lora is None else plain(memory.lora)
        model = None if memory.model is None else plain(memory.model)
        salt = None if memory.cache_salt is None else plain(memory.cache_salt)
        return Bound(lora, memory.lora_name, model, salt, known[1])

    def sources(self, simulation: str) -> dict[str, bool]:
        """Return the sources that speak for a simulation, and whether each has ever told of an invocation; but not what
        other daemons have seen pass by: what passes here is seen here."""
        passing = {
            source
            for source, voice in self._voices.items()
            if voice.stream.teller and not voice.stream.incarnation
        }
        told = super().sources(simulation)
        return {source: tells for source, tells in told.items() if source not in passing}

    def _open(self, stream: Stream, earlier: Blend | None = None) -> Voice:
        if not stream.teller:
            self._own.setdefault(stream.simulation, {})[stream.source] = None
        return super()._open(stream, earlier)

    def _close(self, source: str) -> None:
        voice = self._voices.get(source)
        if voice is not None and voice.stream.teller:
            for _, key in voice.everybody():
                if self._bound.get(key, _NOBODY)[0] == source:
                    self._drop(key)
        elif voice is not None:
            own = self._own[voice.stream.simulation]
            own.pop(source, None)
            if not own:
                del self._own[voice.stream.simulation]
        super()._close(source)

    def _note(self, voice: Voice, event: Any, agent: Agent, restated: bool) -> None:
        if not voice.stream.teller and not restated:
            if event.type == InvocationStarted.type:
                self.calls[voice.stream.source, agent.key] += 1
            elif event.type == AgentWoken.type:
                self.woken[voice.stream.source, agent.key] = None
        super()._note(voice, event, agent, restated)

    def _unsay(self, voice: Voice, key: str) -> None:
        super()._unsay(voice, key)
        # Others are told that it is gone, and no more.
        spoken = voice.stream.source, key
        self.calls.pop(spoken, None)
        self.woken.pop(spoken, None)
        if key not in self.agents:
            self._forget_hash(key)

    def _forget_hash(self, key: str) -> None:
        _, known = self._hashes.pop(key, (None, None))
        if known is not None and self._keys.get(known) == key:
            del self._keys[known]

    # What others tell

    def foretell(self, stream: Stream, word: Word, wall: float, *, anew: bool = False) -> None:
        """Take in what the daemon `stream.teller` says of its stream at `wall` time. `anew` says that words before it
        may have been missed: then only requests that are being served count as started."""
        voice = self._voices.get(stream.source)
        if voice is None or voice.stream.clock != stream.clock:
            self._close(stream.source)
            voice = self._open(stream)
        elif voice.stream != stream:
            # Another daemon has taken over, or the source has begun anew: what it said holds until that is said anew.
            voice.stream = stream
        blend, head, woken = cast(Foretold, voice.blend), word.head, frozenset(word.woken)
        voice.clock.told(head.now, head.pace, head.step, wall)
        blend.worth.told, voice.tells_calls, voice.heard = head.chance, head.tells_calls, wall
        for name, told in word.agents.items():
            key = f"{stream.simulation}/{name}"
            if told is None:
                self._let_go(voice, name, key, wall)
                continue
            agent = voice.agents.get(name) or self._meet(voice, name)
            due = None if told.due is None else Estimate(told.due, told.confidence, told.basis)
            blend.tell(name, due)
            self._remember_told(voice, agent, told.memory)
            running = voice.in_flight.get(key, 0)
            started = max(told.in_flight - running, 0 if anew else word.calls.get(name, 0))
            finished = running + started - told.in_flight
            events: list[Event] = [InvocationStarted(agent=name)] * started
            events += [InvocationFinished(agent=name)] * finished
            if name in woken:
                events.append(AgentWoken(agent=name))
            self._observe(voice, events, wall)
            voice.changed[agent.name] = agent
        self._renew(voice)

    def unheard(self, source: str) -> None:
        """Forget a source of another daemon."""
        voice = self._voices.get(source)
        if voice is not None:
            self.apply([Closed(voice.stream)], voice.heard)

    def teller(self, key: str) -> str:
        """Return the daemon that told an agent's memory, empty for none."""
        voice = self._voices.get(self._bound.get(key, _NOBODY)[0])
        return "" if voice is None else voice.stream.teller

    def still_heard(self, source: str, wall: float) -> None:
        """A source of another daemon has said nothing new, and is heard there."""
        voice = self._voices.get(source)
        if voice is not None:
            voice.heard = wall

    def hold_where_needed(self, key: str) -> None:
        """Where the agent's memory is needed may be elsewhere now."""
        if key in self._bound:
            source, bound = self._bound[key]
            voice = self._voices.get(source)
            if voice is not None:
                self._hold(voice, self.agents[key], bound)

    def brought(self, key: str, content: bytes) -> None:
        """The content of an agent's prefix has come. Raises `ValueError` for one that it doesn't have."""
        if key in self.lacking and key in self._bound:
            source, bound = self._bound[key]
            memory = memory_of(bound, content)
            del self.lacking[key]
            self._let(self._voices[source], self.agents[key], memory)

    def _remember_told(self, voice: Voice, agent: Agent, bound: Bound | None) -> None:
        known = self._bound.get(agent.key)
        if bound is None:
            if known is not None and known[0] == voice.stream.source:
                self._drop(agent.key)
                agent.disclaim(voice.itself)
                self._unbind_if_unsaid(agent.key)
        elif known != (voice.stream.source, bound):
            self._bound[agent.key] = voice.stream.source, bound
            self._hold(voice, agent, bound)

    def _hold(self, voice: Voice, agent: Agent, bound: Bound) -> None:
        """Let the agent's memory be known here if it is needed here, else not."""
        if not self.here(agent.key):
            self.lacking.pop(agent.key, None)
            agent.disclaim(voice.itself)
            self._unbind_if_unsaid(agent.key)
            return
        if bound.content is not None and not self._has(agent, bound):
            self.lacking[agent.key] = bound.content
        else:
            self.lacking.pop(agent.key, None)
        if agent.key not in self.lacking and bound.content is not None:
            agent.claim(voice.itself)
            return
        self._let(voice, agent, memory_of(bound, None))

    def _has(self, agent: Agent, bound: Bound) -> bool:
        """Whether the agent's memory is already the one that was told."""
        memory = agent.memory
        return memory is not None and self._bound_here(agent.key) == bound

    def _let(self, voice: Voice, agent: Agent, memory: Memory) -> None:
        agent.claim(voice.itself)
        self._bind(agent, memory, restated=True)

    def _let_go(self, voice: Voice, name: str, key: str, wall: float) -> None:
        if self._bound.get(key, _NOBODY)[0] == voice.stream.source:
            self._drop(key)
        if voice.knows(name, key):
            self._observe(voice, [AgentReleased(agent=name)], wall)

    def _drop(self, key: str) -> None:
        self._bound.pop(key, None)
        self.lacking.pop(key, None)
