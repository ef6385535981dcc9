"""Where the daemon's view of its engines isn't what they hold.

While nothing runs in an engine and the daemon may only observe, both must agree to the last block: on how many blocks
are cached, and of each agent on how many blocks at the head of its prefix are. The emulated engine tells what it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx

from bench.soak.rig import BLOCK_TOKENS, Speaker
from bench.soak.simulation import tokens_of
from scalesim_adapters.emulator.chain import Chain, published
from scalesim_adapters.emulator.faults import TRUTH

PAGE = 1000
SETTLED_SECONDS = 0.3
TRIES = 20
NOT_KNOWN = "not known"


async def compare(speaker: Speaker, api: httpx.AsyncClient, engines: Sequence[str]) -> list[str]:
    """Let the engines stand still, and return what the daemon has wrong, one line each; then let all go on."""
    await speaker.hold()
    (await api.post("/v1/observe")).raise_for_status()
    try:
        for _ in range(TRIES):
            await asyncio.sleep(SETTLED_SECONDS)
            before = [await _truth(url) for url in engines]
            states = (await api.get("/v1/engines")).raise_for_status().json()["engines"]
            agents = [agent async for agent in _agents(api)]
            if before == [await _truth(url) for url in engines]:
                break
        else:
            return ["the engines don't stand still"]
    finally:
        (await api.post("/v1/resume")).raise_for_status()
        speaker.go()
    return [
        line
        for truth, state in zip(before, states, strict=True)
        for line in differences(truth, state, agents)
    ]


def differences(
    truth: Mapping[int, int], state: Mapping[str, Any], agents: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return what is wrong of one engine: `truth` has its blocks' hashes, and in how many blocks each is cached."""
    name = state["name"]
    if not state["known"]:
        return [f"{name}: {NOT_KNOWN}: {state['unknown_why']}"]
    found = []
    if state["blocks"]["resident"] != sum(truth.values()):
        found.append(f"{name}: {state['blocks']['resident']} blocks, has {sum(truth.values())}")
    for agent in agents:
        prefix = agent["engines"].get(name)
        if prefix is None:
            continue
        known, there = prefix["resident_blocks"], _head(agent["key"], prefix["blocks"], truth)
        if there not in (None, known):
            found.append(f"{name}: {agent['key']} {known} blocks, has {there}")
    return found


def _head(key: str, blocks: int, truth: Mapping[int, int]) -> int | None:
    """Return how many blocks at the head of an agent's prefix are cached; None where its prefix is none of ours."""
    chain = Chain(BLOCK_TOKENS, tokens_of(*key.split("/", 1)))
    if blocks != len(chain.hashes):
        return None
    missing = (at for at, one in enumerate(chain.hashes) if published(one) not in truth)
    return next(missing, len(chain.hashes))


async def _truth(url: str) -> dict[int, int]:
    async with httpx.AsyncClient(base_url=url) as engine:
        blocks = (await engine.get(TRUTH)).raise_for_status().json()["blocks"]
    return {int(one): copies for one, copies in blocks.items()}


async def _agents(api: httpx.AsyncClient) -> AsyncIterator[Mapping[str, Any]]:
    """Yield all agents, in an order that dues don't change."""
    offset = 0
    while True:
        query: dict[str, str | int] = {"offset": offset, "limit": PAGE, "sort": "key"}
        page = (await api.get("/v1/agents", params=query)).raise_for_status().json()
        for agent in page["agents"]:
            yield agent
        offset += PAGE
        if offset >= page["total"]:
            return
