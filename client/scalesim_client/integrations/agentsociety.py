"""AgentSociety 1: `async with acting(self, publisher_here("city")):` around `SocietyAgent.forward` in a subclass.

The stream's clock is the city's tick (`Environment.get_tick`, seconds). A step of an agent's plan tells when it
started (`start_time`, ticks) and how long it takes (`evaluation["consumed_time"]`, minutes); until then the agent
doesn't go on. Nothing of the library is imported. Its requests leave from processes that many agents share, and name
none of them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Any

from scalesim_client.integrations.harmless import harmless
from scalesim_client.publisher import Publisher


def publisher_here(simulation: str, address: str = "tcp://127.0.0.1:5600") -> Publisher:
    """Return this process's publisher: agents live in several, and each is a source of its own."""
    return _publisher_of(os.getpid(), simulation, address)


@cache
def _publisher_of(process: int, simulation: str, address: str) -> Publisher:
    return Publisher(simulation, "sim_seconds", address=address, source=f"{simulation}-{process}")


@asynccontextmanager
async def acting(agent: Any, publisher: Publisher) -> AsyncIterator[None]:
    """Say the tick; that the agent asks its LLM, where its plan's step has ended; and after the block, until when the
    step that it is at takes. Errors of the block pass."""
    name, now, until = str(agent.id), None, None
    with harmless("AgentSociety's tick"):
        until = await _until(agent)
        # Read and said in one go: while one agent waits for its memory, the tick of others goes on.
        now = float(agent.environment.get_tick())
        publisher.step(now)
    async with AsyncExitStack() as stack:
        if now is not None and (until is None or until <= now):
            stack.enter_context(publisher.invocation(name))
        yield
    with harmless("the plans of AgentSociety"):
        ends = await _until(agent)
        if ends is not None and ends != until:
            publisher.activity(name, until=ends)


async def _until(agent: Any) -> float | None:
    """Return the tick at which the current step of the agent's plan ends, as `check_and_update_step` reckons."""
    plan = await agent.memory.status.get("current_plan", False)
    if not plan or not plan.get("steps") or plan.get("completed"):
        return None
    step = plan["steps"][plan.get("index", 0)]
    if "start_time" not in step or "evaluation" not in step:
        return None
    return float(step["start_time"] + int(step["evaluation"]["consumed_time"]) * 60)
