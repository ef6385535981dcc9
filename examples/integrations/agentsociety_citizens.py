"""Citizens of AgentSociety who follow plans of theirs: the library's own workflow of a citizen, without its city.

The city is a program that the library fetches from the net; here a clock stands for it. What the library would ask
an LLM to answer in JSON (needs, plans, which block acts) is given, since any model must do here.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from openai import AsyncOpenAI

import stage
from scalesim_client import Publisher
from scalesim_client.integrations.agentsociety import acting

# At import the library looks whether a hub can be reached; it need not ask.
with patch.dict(os.environ, HF_ENDPOINT="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9"):
    from agentsociety.agent import AgentToolbox, Block, MemoryAttribute
    from agentsociety.agent.memory_config_generator import MemoryConfig
    from agentsociety.cityagent import SocietyAgent, SocietyAgentBlockOutput, SocietyAgentConfig
    from agentsociety.memory import Memory

SECONDS_PER_STEP = 60
MINUTES = {1: [2, 3], 2: [4, 4]}
REMEMBERED = {
    "status": 1,
    "position": {"aoi_position": {"aoi_id": 7}},
    "current_plan": {},
    "execution_context": {},
}


class Chores(Block):
    """Does what the plan says, and takes as long."""

    name = "Chores"
    description = "Does what the plan says"
    OutputType = SocietyAgentBlockOutput

    async def forward(self, agent_context: Any) -> SocietyAgentBlockOutput:
        """Say how long it takes."""
        minutes = agent_context.current_step["minutes"]
        return SocietyAgentBlockOutput(success=True, evaluation="done", consumed_time=minutes, node_id=0)


class Citizen(SocietyAgent):
    """Says what it does until when."""

    publisher: Publisher

    async def forward(self) -> Any:
        """Do as the library does."""
        async with acting(self, self.publisher):
            return await super().forward()

    async def reflect_to_environment(self) -> None:
        """See nothing."""

    async def plan_generation(self) -> None:
        """Take the plan that is given, once."""
        if not await self.memory.status.get("current_plan"):
            steps = [
                {"intention": "chores", "type": "other", "minutes": minutes} for minutes in MINUTES[self.id]
            ]
            plan = {"target": "chores", "steps": steps, "index": 0, "stream_nodes": []}
            await self.memory.status.update("current_plan", plan)


class Chooser:
    """Stands for the library's LLM: asks the engine, and chooses the only block whatever it says."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client

    async def atext_request(self, dialog: Any, **options: Any) -> Any:
        """Ask."""
        await self._client.chat.completions.create(model="base", messages=dialog, max_tokens=8)
        function = SimpleNamespace(arguments=json.dumps({"block_name": Chores.name.lower()}))
        message = SimpleNamespace(tool_calls=[SimpleNamespace(function=function)])
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])


def citizen(number: int, publisher: Publisher, client: AsyncOpenAI, clock: SimpleNamespace) -> Citizen:
    """Return a citizen with the library's own memory."""
    city = SimpleNamespace(
        get_tick=lambda: clock.tick, get_datetime=lambda format_time=False: (0, clock.tick)
    )
    toolbox = AgentToolbox.model_construct(llm=Chooser(client), environment=city, embedding=None)
    attributes = [
        MemoryAttribute(name=name, type=type(value), default_or_value=value, description=name)
        for name, value in REMEMBERED.items()
    ]
    memory = Memory(None, None, MemoryConfig.from_list(attributes))
    params = SocietyAgentConfig(enable_cognition=False)
    person = Citizen(number, f"citizen {number}", toolbox, memory, params, [Chores(toolbox, memory)])

    async def no_needs() -> None:
        pass

    person.needs_block = SimpleNamespace(forward=no_needs)
    person.publisher = publisher
    return person


async def perform(publisher: Publisher, engine: str, steps: int, after_step: Callable[[int], None]) -> None:
    """Let the citizens act, minute by minute."""
    clock = SimpleNamespace(tick=0)
    async with AsyncOpenAI(base_url=engine, api_key="none") as client:
        people = [citizen(number, publisher, client, clock) for number in MINUTES]
        for step in range(steps):
            clock.tick = step * SECONDS_PER_STEP
            await asyncio.gather(*(person.forward() for person in people))
            after_step(step)


def play(publisher: Publisher, engine: str, steps: int, after_step: Callable[[int], None]) -> None:
    """Run the city for some steps."""
    asyncio.run(perform(publisher, engine, steps, after_step))


if __name__ == "__main__":
    stage.run(play, "city", "sim_seconds")
