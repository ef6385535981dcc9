"""The door of the paper's own front end: a full snapshot of distances each step, through the gate like all events.

One update is taken after the other; of a large one, others have their turn between some hundred agents.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError

from scalesim_client.events import MAX_ID_BYTES, SCHEMA_VERSION
from scalesim_daemon.api_models import Problem, Updated
from scalesim_daemon.door import read_body
from scalesim_daemon.feed import Sampler
from scalesim_daemon.gate import Stream
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.paging import in_turns
from scalesim_daemon.sscheduler import BadUpdate, Update, lora_of, read_update
from scalesim_daemon.wire import Refused

SOURCE = "sscheduler"

LONGEST_NAME = (MAX_ID_BYTES - len(f"{SOURCE}/")) // 4
"""Characters of a simulation's name: each may take four bytes of its source's."""

Simulation = Annotated[str, Query(pattern="^[^/]+$", max_length=LONGEST_NAME)]


def add_update(api: FastAPI, sidecar: Sidecar) -> None:
    """Give the API the route that takes updates."""
    sampler, taking = Sampler(), asyncio.Lock()
    default = sidecar.settings.sscheduler.simulation

    @api.post("/v1/update", tags=["events"], openapi_extra=_BODY, responses={413: {"model": Problem}})
    async def take_update(request: Request, simulation: Simulation = default) -> Updated:
        """Take a step's distances as the paper's SScheduler posts them: agents that are left out are far."""
        body = await read_body(request.stream())
        try:
            async with taking:
                update = await asyncio.to_thread(read_update, body)
                await _admit(sidecar, simulation, update)
        except BadUpdate as error:
            sidecar.gate.counts["malformed"] += 1
            sampler.refused(SOURCE, [Refused("update", str(error))])
            where = {"loc": ("body", *error.field), "msg": error.reason, "type": "value_error"}
            raise RequestValidationError([where]) from error
        return Updated(step=update.step, agents=len(update.distances))


async def _admit(sidecar: Sidecar, simulation: str, update: Update) -> None:
    """Let the gate have the update, whole; raises `BadUpdate` before any of it."""
    source = f"{SOURCE}/{simulation}"
    bound = [event async for batch in in_turns(_bound(sidecar, simulation, update)) for event in batch]
    advanced = {"type": "step.advanced", "now": update.step}
    stream, _ = sidecar.gate.streams().get(source, (None, False))
    ours = stream is not None and (stream.simulation, stream.clock) == (simulation, "step")
    if not (ours and sidecar.admit(source, None, [advanced]).accepted):
        # Nobody has opened the source, or another connection speaks for it.
        incarnation = 1 if stream is None else stream.incarnation + 1
        opened = _opened(Stream(source, simulation, incarnation, "step"))
        refusal = sidecar.admit(source, None, [opened, advanced]).error
        if refusal is not None:
            raise BadUpdate((), refusal)
    async for batch in in_turns(bound):
        sidecar.admit(source, None, batch)
    async for batch in _changes(sidecar, source, update):
        sidecar.admit(source, None, batch)


def _bound(sidecar: Sidecar, simulation: str, update: Update) -> Iterator[dict[str, Any]]:
    """Bind the LoRAs of the agents that have no memory yet."""
    template = sidecar.settings.sscheduler.loras
    for agent in update.distances if template is not None else ():
        known = sidecar.population.agents.get(f"{simulation}/{agent}")
        if template is not None and (known is None or known.memory is None):
            yield {"type": "memory.bound", "agent": agent, **lora_of(template, agent)}


async def _changes(sidecar: Sidecar, source: str, update: Update) -> AsyncIterator[list[dict[str, Any]]]:
    """Say which agents are due at another step than was known, and which no longer are. Who has come nearer by what the
    clock advanced is due when it was."""
    foreseen: dict[str, float] = {}
    async for told in in_turns(sidecar.population.foreseen_by(source)):
        foreseen.update(told)
        gone = [agent for agent, _ in told if agent not in update.distances]
        if gone:
            yield [{"type": "agent.idled", "agent": agent} for agent in gone]
    async for near in in_turns(update.distances.items()):
        dues = ((agent, update.step + distance) for agent, distance in near)
        moved = [(agent, due) for agent, due in dues if foreseen.get(agent) != due]
        if moved:
            yield [{"type": "agent.activity_started", "agent": agent, "until": due} for agent, due in moved]


def _opened(stream: Stream) -> dict[str, Any]:
    return {
        "type": "stream.opened",
        "simulation": stream.simulation,
        "source": stream.source,
        "incarnation": stream.incarnation,
        "clock": stream.clock,
        "schema_version": SCHEMA_VERSION,
    }


_DISTANCE = {"type": "number", "minimum": 0}
_AGENT = {"type": ["string", "integer"]}
_UPDATE = {
    "type": "object",
    "required": ["timestep_cnt"],
    "properties": {
        "agent_data": {"type": "object", "additionalProperties": _DISTANCE},
        "timestep_data": {"type": "object", "additionalProperties": {"type": "array", "items": _AGENT}},
        "timestep_cnt": {"type": "integer", "minimum": 0},
    },
    "anyOf": [{"required": ["agent_data"]}, {"required": ["timestep_data"]}],
}
_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _UPDATE}}}
}
