"""Send requests at their times beside whatever else runs, such as `bench.demo.runner.play`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import httpx

from bench.background.requests import Traffic, ask
from bench.workloads.mooncake import Arrival


@asynccontextmanager
async def background(engine: str, arrivals: Iterable[Arrival]) -> AsyncIterator[Traffic]:
    """Send each request to the engine with base URL `engine` at its time, counted from now, until the block ends; then
    wait for those under way. What is yielded fills as they are answered."""
    traffic = Traffic()
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=engine, timeout=300, limits=limits) as client,
        asyncio.TaskGroup() as requests,
    ):
        sender = asyncio.create_task(_send(client, arrivals, requests, traffic))
        try:
            yield traffic
        finally:
            sender.cancel()
            with suppress(asyncio.CancelledError):
                await sender


async def _send(
    client: httpx.AsyncClient, arrivals: Iterable[Arrival], requests: asyncio.TaskGroup, traffic: Traffic
) -> None:
    began = time.monotonic()
    for arrival in arrivals:
        await asyncio.sleep(began + arrival.at - time.monotonic())
        requests.create_task(_ask(client, arrival, traffic))


async def _ask(client: httpx.AsyncClient, arrival: Arrival, traffic: Traffic) -> None:
    traffic.take(await ask(client, arrival.prompt(), arrival.output_tokens))
