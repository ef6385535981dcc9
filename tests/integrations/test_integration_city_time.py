"""AgentSociety's way in without the library: whose word it is that a process says, and at which tick."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from scalesim_client import Publisher
from scalesim_client.integrations.agentsociety import acting
from tests.client.router import Router

FORKED = """
import os, sys
from scalesim_client.integrations.agentsociety import publisher_here
publisher_here("city", sys.argv[1]).close()
child = os.fork()
if not child:
    publisher_here("city", sys.argv[1]).close()
    print(os.getpid(), flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_process_is_a_source_of_its_own() -> None:
    command = [sys.executable, "-W", "error", "-c", FORKED]
    with Router() as router:
        process = subprocess.Popen([*command, router.address], stdout=subprocess.PIPE, text=True)
        with process:
            sources = [router.welcome().topic]
            assert router.receive().types == ["stream.closed"]
            sources.append(router.welcome().topic)
            out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert sources == [f"city-{process.pid}", f"city-{out.strip()}"]


def citizen(number: int, clock: SimpleNamespace, status: Any) -> SimpleNamespace:
    environment = SimpleNamespace(get_tick=lambda: clock.tick)
    return SimpleNamespace(
        id=number, environment=environment, memory=SimpleNamespace(status=SimpleNamespace(get=status))
    )


def test_the_clock_goes_on_while_one_citizen_remembers() -> None:
    async def scene(publisher: Publisher) -> None:
        clock = SimpleNamespace(tick=0)

        async def at_once(*_: Any) -> None:
            pass

        async def slowly(*_: Any) -> None:
            clock.tick += 60
            async with acting(citizen(2, clock, at_once), publisher):
                pass

        async with acting(citizen(1, clock, slowly), publisher):
            pass

    with Router() as router:
        with Publisher("city", "sim_seconds", address=router.address) as publisher:
            router.welcome()
            asyncio.run(scene(publisher))
        heard = router.events_until(lambda event: event["type"] == "stream.closed")
        ticks = [event["now"] for event in heard if event["type"] == "step.advanced"]
        assert ticks == [60, 60, 120]
