"""A small simulation beside it all: it says what happens, and calls. Each call that fails is judged."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from time import monotonic

import httpx

from bench.chaos.engines import BLOCK
from bench.chaos.schedule import GATEWAY
from bench.chaos.world import Outage, World
from scalesim_client import Publisher
from scalesim_client.tags import extra_body, extra_headers

AGENTS = 14
PREFIX_BLOCKS = 10
FRESH_TOKENS = 24
VOCABULARY = 3000
PACE_SECONDS = 0.3
CALL_SECONDS = 60.0
SLEEPER, SLEEPS_UNTIL = "sleeper", 100_000
PINNED = "a01"
PIN_SECONDS = 200_000
SNAPSHOT_SECONDS = 5.0
# What vLLM and SGLang say to a LoRA's name that they weren't given.
UNKNOWN = re.compile("404|400 .*has never been loaded")
# What the gateway can't serve is not the engine's fault, nor the daemon's: the schedule takes them away.
BLAMELESS = {GATEWAY: ("engine", "daemon", "answers")}

# The publisher says that nobody answers, which schedules take care of.
logging.getLogger("scalesim_client").addHandler(logging.NullHandler())


@dataclass(slots=True)
class Agent:
    """One agent: its prompt's beginning, whether that was declared, and its LoRA."""

    name: str
    prefix: list[int]
    declared: bool
    lora: str | None
    path: str | None


@dataclass(slots=True)
class Tally:
    """What came of the calls. `early` ones asked for a LoRA that this engine process hadn't been given yet: the engine
    alone has none of them either. `excused` ones met what the schedule itself had taken away."""

    calls: int = 0
    served: int = 0
    early: int = 0
    excused: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Calls that have ended in no way that is counted."""
        return self.calls - self.served - self.early - self.excused - len(self.failed)


class Play:
    """Agents act for some steps and call in turn. A LoRA that an engine's process has served once is there as long as
    that lives, and has to be."""

    def __init__(self, world: World) -> None:
        random = Random(world.schedule.seed)
        self.world = world
        self.simulation = world.simulation
        self.tally = Tally()
        self.step = 0
        self.agents = [self._agent(number, random) for number in range(AGENTS)]
        self._random = random
        self._served: Counter[tuple[str, int]] = Counter()
        self._calls: set[asyncio.Task[None]] = set()
        self._due = {agent.name: random.randrange(1, 6) for agent in self.agents}
        self._publisher = Publisher(
            self.simulation,
            address=f"ipc://{world.feed_way.listen}",
            snapshot_every=SNAPSHOT_SECONDS,
        )
        self._client = httpx.AsyncClient(
            timeout=CALL_SECONDS, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )
        for agent in self.agents:
            if agent.declared or agent.lora is not None:
                self._publisher.bind(
                    agent.name,
                    lora=agent.path,
                    lora_name=agent.lora,
                    token_ids=agent.prefix if agent.declared else None,
                )
        # Nothing that happens later tells of it again.
        self._publisher.activity(SLEEPER, until=SLEEPS_UNTIL)

    @property
    def loras(self) -> set[str]:
        """The LoRAs that agents have bound."""
        return {agent.lora for agent in self.agents if agent.lora is not None}

    def _agent(self, number: int, random: Random) -> Agent:
        """Every third has a LoRA; of the others every second declares its prefix."""
        known = self.world.engine.loras
        prefix = [random.randrange(3, VOCABULARY) for _ in range(PREFIX_BLOCKS * BLOCK)]
        path = known[number // 3 % len(known)] if number % 3 == 0 else None
        lora = None if path is None else f"{self.simulation}-{path.name}"
        return Agent(f"a{number:02}", prefix, bool(number % 2), lora, None if path is None else str(path))

    async def steps(self, count: int) -> None:
        """Play so many steps."""
        for _ in range(count):
            await self._step()

    async def play(self, over: asyncio.Event) -> None:
        """Play until it is over."""
        while not over.is_set():
            await self._step()

    async def calls_over(self) -> None:
        """Wait until every call has ended."""
        while self._calls:
            await asyncio.wait(self._calls)

    async def close(self) -> None:
        """Say goodbye."""
        await asyncio.to_thread(self._publisher.close)
        await self._client.aclose()

    async def _step(self) -> None:
        began = monotonic()
        self.step += 1
        self._publisher.step(self.step)
        for agent in self.agents:
            if self._due[agent.name] <= self.step:
                self._due[agent.name] = self.step + self._random.randrange(3, 9)
                call = asyncio.create_task(self._call(agent, self._fresh()))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
        await asyncio.sleep(max(0.0, began + PACE_SECONDS - monotonic()))

    def _fresh(self) -> list[int]:
        return [self._random.randrange(3, VOCABULARY) for _ in range(FRESH_TOKENS)]

    async def _call(self, agent: Agent, fresh: list[int]) -> None:
        self.tally.calls += 1
        world, began, life = self.world, monotonic(), self.world.lives
        world.calling += 1
        with self._publisher.invocation(agent.name):
            problem = await self._ask(agent, [*agent.prefix, *fresh])
        world.calling -= 1
        self._publisher.activity(agent.name, until=self._due[agent.name])
        ended = monotonic()
        if problem is None:
            self.tally.served += 1
            if agent.lora is not None:
                self._served[agent.lora, life] += 1
        elif blameless(world.outages, BLAMELESS.get(world.schedule.through, ("engine",)), began, ended):
            self.tally.excused += 1
        elif agent.lora and UNKNOWN.match(problem) and not self._served[agent.lora, life]:
            self.tally.early += 1
        else:
            self.tally.failed.append(f"{agent.name} at step {self.step}, {ended - began:.1f} s: {problem}")

    async def _ask(self, agent: Agent, prompt: list[int]) -> str | None:
        """Return what was wrong with the answer, None where nothing was."""
        engine, key = self.world.engine, (self.simulation, agent.name)
        base = self.world.daemon.gateway if self.world.schedule.through == GATEWAY else engine.server.url
        body = engine.body(prompt, agent.lora, extra_body(*key)["session_id"])
        try:
            answer = await self._client.post(f"{base}/v1/completions", json=body, headers=extra_headers(*key))
            if not answer.is_success:
                return f"{answer.status_code} {answer.text[:160]}"
            made = answer.json()["usage"]["completion_tokens"]
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
        return None if made else "an answer without tokens"


def blameless(outages: Sequence[Outage], targets: Sequence[str], began: float, ended: float) -> bool:
    """Whether the schedule kept one of the targets from answering while a call was under way. Pure."""
    return any(
        outage.target in targets and outage.begin <= ended and (outage.end is None or began <= outage.end)
        for outage in outages
    )
