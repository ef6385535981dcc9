"""`python -m bench.soak.speak`: the process that plays simulations to a daemon at a steady rate, and asks the engines.

Its arguments are one JSON object, `Script`. Every second it prints a line of JSON, `Said`. By its standard input it is
told to `hold` requests to the engines (it prints a line when none runs any more), to `go` on with them, and to `end`,
after which its last line has the final counts.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from itertools import count, cycle
from random import Random
from time import monotonic
from typing import Any

import aiohttp
import msgspec
import zmq

from bench.soak.publishing import Published
from bench.soak.simulation import Event, Simulation, tokens_of
from bench.soak.voice import Voice

STEP_SECONDS = 0.5
FIRST_SHARE = 0.1
"""The part of a step in which all say what they say first: calls come in bursts, and then engines have a pause."""
PER_MESSAGE = 20
EVENTS_PER_AGENT = 2.0
"""A second."""
CHURN = 0.0125
"""The share of the agents that go in a step: one lives for 40 seconds."""
VISITORS = 4
VISITOR_AGENTS = 5
VISITOR_STEPS = 20
PUBLISHED = 2
PUBLISHED_STEPS = 120
SNAPSHOT_STEPS = 60
QUESTION_TOKENS = 24
ANSWER_TOKENS = 2
STRANGERS_EVERY, STRANGERS_FOR = 180.0, 60.0
"""Of so many seconds the last have requests that nobody announces, each of a session of its own."""
STRANGER_TOKENS = 64
STRANGERS_PER_STEP = 4
KEEP_ALIVE_SECONDS = 2.0


class Script(msgspec.Struct, frozen=True):
    """What is to be played: so many events a second (`rate`), by so many `simulations` at a time, each for `life`
    steps. `engines` are base URLs."""

    address: str
    engines: list[str]
    rate: float
    seed: int
    simulations: int = 12
    life: int = 240

    @property
    def agents(self) -> int:
        """How many agents a simulation has: of whom two events are said a second, each."""
        return max(10, round(self.rate / self.simulations / EVENTS_PER_AGENT))

    @property
    def churn(self) -> float:
        """How many of them go and come in a step, on average."""
        return CHURN * self.agents


class Said(msgspec.Struct):
    """Counts since the start, but for `agents`, who there are now, and `behind`, the seconds by which the last step
    came late. `left` is how many agents there were when their streams were closed, `gone` how many were released."""

    seconds: float = 0.0
    sent: int = 0
    dropped: int = 0
    waited: int = 0
    asked_again: int = 0
    agents: int = 0
    gone: int = 0
    left: int = 0
    streams: int = 0
    requests: int = 0
    failed: int = 0
    strangers: int = 0
    published: int = 0
    longest_publish: float = 0.0
    behind: float = 0.0
    held: bool = False
    ended: bool = False


class Player:
    """All simulations, their voices, and the requests that are under way."""

    def __init__(self, script: Script, session: aiohttp.ClientSession) -> None:
        self._script = script
        self._session = session
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._random = Random(script.seed)
        self._names = count()
        self._numbers = count()
        self._engines = cycle(script.engines)
        self._voices: dict[str, tuple[Simulation, Voice]] = {}
        self._published: list[Published] = []
        self._over = Said()
        self._tasks: set[asyncio.Task[None]] = set()
        self._engine_of: dict[str, str] = {}
        self._holding = False
        self._began = monotonic()

    async def play(self) -> None:
        """Play until cancelled."""
        self._began = monotonic()
        for number in count():
            start = self._began + number * STEP_SECONDS
            self._over.behind = max(0.0, monotonic() - start)
            await _until(start)
            await self._come_and_go(number)
            rest = self._begin(number)
            for place, (voice, events) in enumerate(rest):
                share = FIRST_SHARE + (0.95 - FIRST_SHARE) * place / len(rest)
                await _until(start + share * STEP_SECONDS)
                voice.say(events)

    async def _come_and_go(self, step: int) -> None:
        script = self._script
        for source, (simulation, _) in list(self._voices.items()):
            if simulation.now >= (script.life if simulation.remembers else VISITOR_STEPS):
                self._close(source)
        while sum(simulation.remembers for simulation, _ in self._voices.values()) < script.simulations:
            # Those of the first minutes have lived for a while, so that they don't all end at once.
            self._open(f"village{next(self._numbers)}", first=step == 0)
        hosts = [source for source, (simulation, _) in self._voices.items() if simulation.remembers]
        while len(self._voices) < script.simulations + VISITORS:
            self._visit(self._random.choice(hosts))
        for one in [one for one in self._published if one.gone >= PUBLISHED_STEPS]:
            self._published.remove(one)
            self._start(self._end(one))
        while len(self._published) < PUBLISHED:
            name = f"published{next(self._numbers)}"
            self._published.append(Published(name, script.address, self._names, self._random))
            self._over.streams += 1

    def _open(self, name: str, *, first: bool) -> None:
        simulation = Simulation(name, name, self._script.agents, self._names, self._random)
        self._engine_of[name] = next(self._engines)
        self._join(simulation)
        if first:
            simulation.now = self._random.randrange(self._script.life)

    def _visit(self, host: str) -> None:
        source = f"{host}/visitor{next(self._numbers)}"
        self._join(Simulation(host, source, VISITOR_AGENTS, self._names, self._random, remembers=False))

    def _join(self, simulation: Simulation) -> None:
        voice = Voice(self._context, self._script.address, simulation.source)
        opening = simulation.opening()
        for at in range(0, len(opening), 100):
            voice.say(opening[at : at + 100])
        self._voices[simulation.source] = simulation, voice
        self._over.streams += 1

    def _close(self, source: str) -> None:
        simulation, voice = self._voices.pop(source)
        self._engine_of.pop(source, None)
        voice.close()
        self._over.sent += voice.sent
        self._over.waited += voice.waited
        self._over.left += len(simulation)
        self._over.gone += simulation.gone

    async def _end(self, one: Published) -> None:
        await one.close()
        over = self._over
        over.sent += one.sent
        over.dropped += one.dropped
        over.published += one.calls
        over.longest_publish = max(over.longest_publish, one.longest)
        over.left += len(one)
        over.gone += one.gone

    def _begin(self, number: int) -> list[tuple[Voice, list[Event]]]:
        """Say what is said first; return what is said in the course of the step."""
        for one in self._published:
            one.step()
        due = self._script.rate * STEP_SECONDS * (number + 1) - self._sent()
        rest: list[tuple[Voice, list[Event]]] = []
        for place, (simulation, voice) in enumerate(self._voices.values()):
            share = round(due / self._script.simulations) if simulation.remembers else 2 * VISITOR_AGENTS
            step = simulation.step(max(0, share), self._churn() if simulation.remembers else 0)
            if voice.asked_again():
                self._over.asked_again += 1
                voice.say(simulation.snapshot())
            elif (number + place) % SNAPSHOT_STEPS == 0:
                voice.say(simulation.snapshot())
            voice.say(step.first)
            for agent in step.calling:
                self._call(simulation, voice, agent)
            rest += [
                (voice, list(step.rest[at : at + PER_MESSAGE]))
                for at in range(0, len(step.rest), PER_MESSAGE)
            ]
        if not self._holding and number * STEP_SECONDS % STRANGERS_EVERY >= STRANGERS_EVERY - STRANGERS_FOR:
            for _ in range(STRANGERS_PER_STEP):
                self._start(self._ask_as_stranger())
        self._random.shuffle(rest)
        # Each voice's messages stay in order: they are numbered as they are sent.
        return rest

    def _churn(self) -> int:
        """Return a whole number, on average the script's."""
        return int(self._script.churn + self._random.random())

    def _call(self, simulation: Simulation, voice: Voice, agent: str) -> None:
        if self._holding:
            self._ended(simulation, voice, agent)
        else:
            self._start(self._ask(simulation, voice, agent))

    async def _ask(self, simulation: Simulation, voice: Voice, agent: str) -> None:
        prompt = tokens_of(simulation.name, agent)
        await self._request(self._engine_of[simulation.name], f"{simulation.name}/{agent}", prompt)
        if self._voices.get(simulation.source) == (simulation, voice):
            self._ended(simulation, voice, agent)

    @staticmethod
    def _ended(simulation: Simulation, voice: Voice, agent: str) -> None:
        events = simulation.called(agent)
        if events:
            voice.say(events)

    async def _ask_as_stranger(self) -> None:
        name = f"stranger{next(self._names)}"
        self._over.strangers += 1
        await self._request(
            self._random.choice(self._script.engines), name, tokens_of(name, name)[:STRANGER_TOKENS]
        )

    async def _request(self, engine: str, session: str, prefix: list[int]) -> None:
        question = [31_000 + self._random.randrange(900) for _ in range(QUESTION_TOKENS)]
        body = {
            "model": "base",
            "prompt": prefix + question,
            "max_tokens": ANSWER_TOKENS,
            "session_id": session,
        }
        self._over.requests += 1
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(
                f"{engine}/v1/completions", data=msgspec.json.encode(body), headers=headers
            ) as answer:
                await answer.read()
                self._over.failed += answer.status != 200
        except (aiohttp.ClientError, TimeoutError):
            self._over.failed += 1

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sent(self) -> int:
        voices = sum(voice.sent for _, voice in self._voices.values())
        return self._over.sent + voices + sum(one.sent for one in self._published)

    def said(self) -> Said:
        """Return the counts as they are now."""
        over, published = self._over, self._published
        return msgspec.structs.replace(
            over,
            seconds=monotonic() - self._began,
            sent=self._sent(),
            dropped=over.dropped + sum(one.dropped for one in published),
            waited=over.waited + sum(voice.waited for _, voice in self._voices.values()),
            agents=sum(len(simulation) for simulation, _ in self._voices.values()) + sum(map(len, published)),
            gone=over.gone
            + sum(simulation.gone for simulation, _ in self._voices.values())
            + sum(one.gone for one in published),
            published=over.published + sum(one.calls for one in published),
            longest_publish=max([over.longest_publish, *(one.longest for one in published)]),
        )

    async def hold(self) -> None:
        """Ask the engines nothing more, and wait for what has been asked."""
        self._holding = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def go(self) -> None:
        """Ask the engines again."""
        self._holding = False

    async def end(self) -> None:
        """Close all streams, and send all that waits."""
        await self.hold()
        for source in list(self._voices):
            self._close(source)
        while self._published:
            await self._end(self._published.pop())
        await asyncio.to_thread(self._context.term)


async def _until(moment: float) -> None:
    wait = moment - monotonic()
    if wait > 0:
        await asyncio.sleep(wait)


def _print(said: Said) -> None:
    sys.stdout.write(msgspec.json.encode(said).decode() + "\n")
    sys.stdout.flush()


async def _report(player: Player) -> None:
    while True:
        await asyncio.sleep(1)
        _print(player.said())


async def main(script: Script) -> None:
    """Play until told to end, or until nobody is left to tell."""
    commands = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(commands)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    # A connection that the server is about to close is not used once more.
    connections = aiohttp.TCPConnector(limit=100, keepalive_timeout=KEEP_ALIVE_SECONDS)
    async with aiohttp.ClientSession(connector=connections) as session:
        player = Player(script, session)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(player.play()), group.create_task(_report(player))]
            async for line in commands:
                match line.strip():
                    case b"hold":
                        await player.hold()
                        _print(msgspec.structs.replace(player.said(), held=True))
                    case b"go":
                        player.go()
                    case b"end":
                        break
            for task in tasks:
                task.cancel()
        seconds = player.said().seconds
        await player.end()
        _print(msgspec.structs.replace(player.said(), seconds=seconds, ended=True))


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Script)))
