"""Who drives an engine, as people see it, and what a daemon that doesn't says to who wants something of it."""

from __future__ import annotations

import asyncio

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.api_models import EngineState
from scalesim_daemon.ctl.views.engines import engine_state
from scalesim_daemon.fleet.lease import Answer, Ask, Lease, Terms, Verb
from scalesim_daemon.fleet.lease_clock import now
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.plan import Action, Step
from tests.daemon.still import add_engine, ask, open_stream, say, tokens

TERMS = Terms.of(5.0)
HELD = Answer(holder="there/1", token=7, left=4.0, since=1000.0)


def test_an_engine_that_another_daemon_drives_is_left_alone(sidecar: Sidecar) -> None:
    driver = add_engine(sidecar)
    lease = driver.view.lease = Lease("here/1", TERMS)
    lease.answered(Ask(Verb.LOOK, 0, now()), HELD, now())
    open_stream(sidecar)
    say(sidecar, {"type": "memory.bound", "agent": "a", "token_ids": tokens(0, 2)})

    async def scene() -> None:
        sidecar.cycle()
        engines, prefetch = await ask(
            sidecar,
            lambda api: api.get("/v1/engines"),
            lambda api: api.post("/v1/prefetch", json={"key": "sim/a"}),
        )
        (state,) = engines.json()["engines"]
        assert state["lease"] == {
            "phase": "watches",
            "holder": "there",
            "token": 7,
            "since": 1000.0,
            "why_not": "held by there",
        }
        assert engine_state(EngineState.model_validate(state)) == "up, held by there"
        assert (prefetch.status_code, prefetch.json()["detail"]) == (409, "one: held by there")
        step = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/a", 0, 2, 1.0, "due next")
        driver.pursue([step], [], 0)
        driver.move_model(step)
        driver.release("lora")
        assert not driver.busy

    asyncio.run(scene())
