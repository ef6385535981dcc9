"""A simulated engine: it works through its requests step by step, as vLLM's scheduler does, by a cost model."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from itertools import count
from typing import Any

import simpy

from scalesim_adapters.base import Pressure
from scalesim_daemon.whatif.costs import Costs
from scalesim_daemon.whatif.memory import Device

Process = Generator[simpy.Event, Any, None]


@dataclass(eq=False, slots=True)
class Request:
    """`prefix` blocks of the agent's own, then `fresh` tokens of prompt, and `output` tokens of answer. How many
    blocks of the prefix were `cached` or `loaded` from the host is known once it runs, how many tokens are `left` to
    compute as it goes on. `first_token` is in simulated seconds."""

    agent: str
    prefix: int
    fresh: int
    output: int
    ended: simpy.Event
    first_token: float = 0.0
    cached: int = 0
    loaded: int = 0
    left: int = 0

    def computed(self, block_tokens: int) -> int:
        """Return how many tokens of its prompt the engine has to compute."""
        return (self.prefix - self.cached - self.loaded) * block_tokens + self.fresh


class Engine:
    """One engine. At most `most_running` requests run at once; the others wait in the order in which they came."""

    def __init__(
        self, env: simpy.Environment, costs: Costs, device: Device, most_running: int = 1024
    ) -> None:
        self.device = device
        self._env = env
        self._costs = costs
        self._most_running = most_running
        self._running = 0
        self._finished = 0
        self._steps = 0
        self._waiting: deque[Request] = deque()
        self._prefilling: deque[Request] = deque()
        # With the number of the step that ends them.
        self._decoding: list[tuple[int, int, Request]] = []
        self._serial = count()
        self._copying = 0
        self._link = simpy.Resource(env)
        self._work = env.event()
        env.process(self._run())

    def submit(self, agent: str, prefix: int, fresh: int, output: int) -> Request:
        """Let a request wait for its first step; `ended` happens when it is answered."""
        request = Request(agent, prefix, fresh, output, self._env.event())
        self._waiting.append(request)
        self._wake()
        return request

    @property
    def pressure(self) -> Pressure:
        """Its own counts of requests."""
        return Pressure(self._running, len(self._waiting), self._finished)

    def rest(self, fresh: int, output: int) -> int:
        """Return how many blocks a request needs beyond its prefix."""
        return -(-(fresh + output) // self._costs.block_tokens)

    def _wake(self) -> None:
        if not self._work.triggered:
            self._work.succeed()

    def _run(self) -> Process:
        while True:
            computed, prompts = self._prefill()
            decoding = len(self._decoding)
            if not computed and not decoding:
                self._work = self._env.event()
                yield self._work
                continue
            copied, self._copying = self._copying, 0
            copy_seconds = copied * (self._costs.host_token_seconds or 0.0)
            yield self._env.timeout(self._costs.of_step(computed, decoding) + copy_seconds)
            self._steps += 1
            for request in prompts:
                request.first_token = self._env.now
                ends = self._steps + request.output - 1
                heapq.heappush(self._decoding, (ends, next(self._serial), request))
            while self._decoding and self._decoding[0][0] <= self._steps:
                self._end(heapq.heappop(self._decoding)[2])

    def _prefill(self) -> tuple[int, list[Request]]:
        """Give the step's tokens to the prompts in turn; return how many, and the requests whose prompts are done."""
        budget = self._costs.batch_tokens - len(self._decoding)
        computed, done = 0, []
        while computed < budget and self._admit():
            request = self._prefilling[0]
            tokens = min(request.left, budget - computed)
            request.left -= tokens
            computed += tokens
            if not request.left:
                done.append(self._prefilling.popleft())
        return computed, done

    def _admit(self) -> bool:
        """Let requests begin until one can compute; return whether there is one."""
        while not self._prefilling and self._waiting and self._running < self._most_running:
            request = self._waiting[0]
            rest = self.rest(request.fresh, request.output)
            if not self.device.can_begin(request.agent, request.prefix, rest):
                break
            self._waiting.popleft()
            self._running += 1
            request.cached, request.loaded = self.device.begin(request.agent, request.prefix, rest)
            request.left = request.computed(self._costs.block_tokens)
            if request.loaded and self._costs.host_beside:
                self._env.process(self._load(request))
                continue
            self._copying += request.loaded * self._costs.block_tokens
            self._prefilling.append(request)
        return bool(self._prefilling)

    def _load(self, request: Request) -> Process:
        """Copy from the host beside the engine's steps, one request after another."""
        with self._link.request() as turn:
            yield turn
            tokens = request.loaded * self._costs.block_tokens
            yield self._env.timeout(tokens * (self._costs.host_token_seconds or 0.0))
        self._prefilling.append(request)
        self._wake()

    def _end(self, request: Request) -> None:
        self._running -= 1
        self._finished += 1
        # The last token of an answer is never computed on.
        full = (request.fresh + request.output - 1) // self._costs.block_tokens
        self.device.end(request.agent, self.rest(request.fresh, request.output), full)
        request.ended.succeed()
