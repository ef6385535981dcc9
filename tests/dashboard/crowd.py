"""Simulations that play while a browser looks: a village of 25 on the demo's emulated engine, and many thousands."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import httpx

from bench.demo.prompts import draw_prompts
from bench.demo.runner import play
from bench.workloads.village import Village
from scalesim_client import Publisher
from scalesim_client.events import AgentRegistered

VILLAGE_STEPS = 400
PREFIX_TOKENS = 128
MEAN_STEPS = 150.0
CALLS_A_STEP = 4
LONGEST_END = 20.0


class _Over(Exception):
    """The test has seen enough."""


@contextmanager
def village(engine: str, feed: str, *, pace: float) -> Iterator[None]:
    """Let the demo's 25 agents live on an engine, `pace` seconds between the steps."""
    over = Event()

    def stop_if_over() -> None:
        if over.is_set():
            raise _Over

    def live() -> None:
        workload = Village(1, VILLAGE_STEPS)
        with Publisher(workload.simulation, address=feed) as publisher:
            try:
                prompts = draw_prompts(workload)
                asyncio.run(
                    play(engine, workload, prompts, pace=pace, speaker=publisher, on_step=stop_if_over)
                )
            except _Over:
                pass

    with _running(live, over):
        yield


@contextmanager
def crowd(engine: str, feed: str, agents: int, *, pace: float, prefixes: int) -> Iterator[None]:
    """Let so many agents act on their own, the first of them with prefixes. Some call the engine, the others say so."""
    over = Event()

    def live() -> None:
        rng = random.Random(5)
        with (
            Publisher("city", address=feed) as publisher,
            httpx.Client(base_url=engine, timeout=30) as client,
        ):
            publisher.step(0)
            prompts = {
                f"a{number}": [rng.randrange(10, 30_000) for _ in range(PREFIX_TOKENS)]
                for number in range(prefixes)
            }
            due: defaultdict[int, list[str]] = defaultdict(list)

            def act(agent: str, now: int) -> None:
                until = now + 1 + int(rng.expovariate(1 / MEAN_STEPS))
                publisher.activity(agent, until=float(until))
                due[until].append(agent)

            for number in range(agents):
                agent = f"a{number}"
                publisher.send(AgentRegistered(agent=agent))
                if agent in prompts:
                    publisher.bind(agent, token_ids=prompts[agent], model="base")
                if number % 11:
                    act(agent, 0)
                if number % 500 == 499:
                    publisher.flush(10)
            now = 0
            while not over.wait(pace):
                now += 1
                publisher.step(float(now))
                for place, agent in enumerate(due.pop(now, [])):
                    with publisher.invocation(agent):
                        if place < CALLS_A_STEP and agent in prompts:
                            body = {"model": "base", "prompt": [*prompts[agent], now], "max_tokens": 2}
                            asked = {**body, "session_id": f"city/{agent}"}
                            client.post("/v1/completions", json=asked).raise_for_status()
                    act(agent, now)

    with _running(live, over):
        yield


@contextmanager
def _running(live: Callable[[], None], over: Event) -> Iterator[None]:
    thread = Thread(target=live, name="simulation")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(LONGEST_END)
        assert not thread.is_alive()
