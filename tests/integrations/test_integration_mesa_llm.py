"""Mesa-LLM's real agents on Mesa's real step loop, told to a real daemon."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from tests.client.router import Router
from tests.daemon.live import emulator
from tests.integrations.theatre import ROOT, playing_in, python_of

LAST = 5
OWN_MEMORY = """
import os, sys
os.environ |= {"OPENAI_API_KEY": "none", "OPENAI_API_BASE": sys.argv[2], "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
import mesa
from mesa_llm.llm_agent import LLMAgent
from mesa_llm.memory.st_lt_memory import STLTMemory
from mesa_llm.reasoning.cot import CoTReasoning
from scalesim_client import Publisher
from scalesim_client.integrations.mesa_llm import ScaleSimLLMAgent, attach

class Citizen(ScaleSimLLMAgent, LLMAgent):
    def __init__(self, model):
        super().__init__(model, CoTReasoning, "openai/base")
        self.memory = STLTMemory(agent=self, llm_model="openai/base")

town = mesa.Model(seed=1)
town.citizen = Citizen(town)
with Publisher("town", address=sys.argv[1]) as publisher:
    attach(town, publisher)
    town.citizen.memory.llm.generate("What has been?")
"""
pytestmark = pytest.mark.integration


def test_the_citizens_are_foreseen(tmp_path: Path) -> None:
    python = python_of("mesa-llm")

    async def scene() -> None:
        async with playing_in(python, tmp_path, "mesa_llm_citizens", steps=LAST) as play:
            async for step in play.steps:
                await play.foresees({"1": 1, "2": 3 - (step - 1) % 3})
                if step == LAST:
                    await play.learn({"1", "2"})

    asyncio.run(scene())


def test_a_memory_put_in_later_is_heard(tmp_path: Path) -> None:
    python = python_of("mesa-llm")
    with Router() as router, emulator(tmp_path) as engine:
        command = [str(python), "-c", OWN_MEMORY, router.address, f"{engine.url}/v1"]
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT / "client")}) as process:
            assert router.socket.poll(120_000)
            router.welcome()
            heard = router.events_until(lambda event: event["type"] == "stream.closed")
        assert process.returncode == 0
    assert [event["type"] for event in heard if event["type"].startswith("invocation")] == [
        "invocation.started",
        "invocation.finished",
    ]
