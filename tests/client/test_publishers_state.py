"""Publishers of all languages against a door that the test holds: what they restate, and when."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import Iterator

import msgpack
import pytest

from scalesim_client.state import NewestState
from tests.client.router import Message, Router
from tests.client.say import parse
from tests.client.speakers import ROOT, built, speaking

# The first test of a language builds it.
pytestmark = [pytest.mark.publishers, pytest.mark.timeout(180)]
every_language = pytest.mark.parametrize("language", ["python", "node", "c", "rust"])

AGENTS = ("Ada", "Bob", "Cyd", "Zoë")


def a_long_story(seed: int, events: int = 400) -> Iterator[str]:
    """Yield lines that say all kinds of events, some of them invalid, with a clock that also goes back."""
    dice = random.Random(seed)
    now = 0.0
    for _ in range(events):
        agent, amount = dice.choice(AGENTS), dice.choice((0, 1, 2.5, 1000))
        match dice.randrange(13):
            case 0:
                now = now + 0.5 if dice.random() < 0.9 else dice.random()
                yield f"step.advanced now={now}"
            case 1:
                yield f"agent.activity_started agent={agent} for={amount}"
            case 2:
                yield f"agent.activity_started agent={agent} until={amount} activity=cook"
            case 3:
                yield f"agent.moved agent={agent} xy={amount},-2 destination=4,0.25 speed={amount} vision=3"
            case 4:
                yield f"agent.moved agent={agent} place=park"
            case 5:
                yield f"plan.declared agents=Ada,Bob,Dan at={amount} not_before=2"
            case 6:
                yield "plan.declared agents=Cyd,Ada,Bob,Zoë probabilities=0.5,1,0,0.125"
            case 7:
                yield "plan.declared agents=Bob,Ada"
            case 8:
                yield f"memory.bound agent={agent} lora=/loras/a lora_name=a token_ids=1,300,70000 model=base"
            case 9:
                yield dice.choice((f"memory.unbound agent={agent}", f"agent.released agent={agent}"))
            case 10:
                yield f"invocation.started agent={agent} request={dice.randrange(3)}"
            case 11:
                yield f"invocation.finished agent={agent} request={dice.randrange(3)}"
            case _:
                yield f"agent.{dice.choice(('woken', 'idled', 'registered'))} agent={agent}"


async def heard(router: Router) -> Message:
    return await asyncio.to_thread(router.receive)


@every_language
@pytest.mark.parametrize("seed", range(3))
def test_every_language_restates_what_the_python_one_does(language: str, seed: int) -> None:
    told, state = list(a_long_story(seed)), NewestState()
    for kind, fields in map(parse, told):
        state.apply(kind(**fields))

    async def scene() -> None:
        with Router() as router:
            async with speaking(language, router.address) as speaker:
                opened = await heard(router)
                router.reply(opened, "welcome")
                speaker.say(*told)
                await speaker.flush()
                router.reply(opened, "resync", last_seq=2**40)
                parts, events = await asyncio.to_thread(router.snapshot)
                assert [part.events[0].get("now") for part in parts] == [state.now]
                assert events == [msgpack.unpackb(packed) for packed in state.snapshot()]

    asyncio.run(scene())


@every_language
def test_a_daemon_that_stops_reading_gets_the_newest_state_later(language: str) -> None:
    agents, filler = 10, "x" * 16_384

    async def scene() -> None:
        with Router(receive_mark=1) as router:
            async with speaking(language, router.address) as speaker:
                router.reply(await heard(router), "welcome")
                number = 0

                def bind() -> None:
                    nonlocal number
                    number += 1
                    speaker.say(f"memory.bound agent={number % agents} text={number}-{filler}")

                bind()
                await speaker.flush()
                while await speaker.ask("flush 0.2") == "flushed 1":
                    bind()
                # Beyond a thousand messages and what sockets hold, the queue of 8 MiB: then only the state is kept.
                speaker.say("memory.bound agent=once text=0-")
                for _ in range(600):
                    bind()
                sent, dropped, invalid = map(int, (await speaker.ask("count")).split())
                assert sent > 900 and dropped > 0 and not invalid
                newest: dict[str, int] = {}
                while sorted(newest.values()) != [0, *range(number - agents + 1, number + 1)]:
                    for event in (await heard(router)).events:
                        for bound in event.get("events", [event]):
                            if bound["type"] == "memory.bound":
                                newest[bound["agent"]] = int(bound["text"].split("-")[0])
                await speaker.flush()
                sent, dropped, _ = map(int, (await speaker.ask("count")).split())
                assert sent + dropped == number + 1

    asyncio.run(scene())


@every_language
def test_the_state_is_said_again_from_time_to_time(language: str) -> None:
    async def scene() -> None:
        with Router() as router:
            async with speaking(language, router.address, snapshot_every=0.1) as speaker:
                router.reply(await heard(router), "welcome")
                speaker.say("agent.moved agent=Ada place=park")
                for _ in range(2):
                    while not (await asyncio.to_thread(router.snapshot))[1]:
                        pass

    asyncio.run(scene())


@every_language
def test_times_beyond_all_bounds_are_long_ones(language: str) -> None:
    ages = 1e19

    async def scene() -> None:
        with Router() as router:
            async with speaking(language, router.address, snapshot_every=ages) as speaker:
                opened = await heard(router)
                speaker.say("agent.moved agent=Ada place=park")
                flushed = asyncio.create_task(speaker.ask(f"flush {ages}"))
                assert not (await asyncio.wait({flushed}, timeout=0.2))[0]
                router.reply(opened, "welcome")
                assert await flushed == "flushed 1"
                for _ in range(20):
                    assert (await heard(router)).types == ["agent.moved"]
                    speaker.say("agent.moved agent=Ada place=park")
                    await speaker.flush()

    asyncio.run(scene())


@every_language
def test_a_refused_stream_stays_silent_until_another_daemon_comes(language: str) -> None:
    async def scene() -> None:
        with Router() as first:
            spoken = speaking(language, first.address)
            speaker = await spoken.__aenter__()
            opened = await heard(first)
            first.reply(opened, "welcome", error="schema version 1.0 is not supported")
            while (await speaker.ask("count")).split()[1] == "0":
                speaker.say("agent.moved agent=Ada place=park")
            assert not first.socket.poll(0)
        with Router(first.address) as second:
            again = await heard(second)
            assert again.events == opened.events and again.seq == opened.seq + 1
            second.reply(again, "welcome")
            assert (await asyncio.to_thread(second.snapshot))[1][-1]["place"] == "park"
            await spoken.__aexit__(None, None, None)

    asyncio.run(scene())


@every_language
def test_a_stream_that_a_daemon_does_not_know_is_opened_again(language: str) -> None:
    async def scene() -> None:
        with Router() as router:
            async with speaking(language, router.address) as speaker:
                opened = await heard(router)
                # What isn't a control message does no harm.
                for odd in (
                    [b"x"],
                    [b"scalesimd", b"\0" * 8, b"junk"],
                    [b"", b"", b"\x92\x00\x92\x05\x81\xa4type\xa1x"],
                ):
                    router.socket.send_multipart([opened.sender, *odd])
                router.reply(opened, "welcome")
                speaker.say("agent.moved agent=Ada place=park")
                moved = await heard(router)
                router.reply(moved, "resync", last_seq=-1)
                again = await heard(router)
                assert (again.seq, again.events) == (moved.seq + 1, opened.events)
                router.reply(again, "welcome", resync=True)
                events = (await asyncio.to_thread(router.snapshot))[1]
                assert [event["type"] for event in events] == ["agent.registered", "agent.moved"]

    asyncio.run(scene())


@every_language
@pytest.mark.parametrize(("address", "simulation"), [("5600", "village"), ("tcp://127.0.0.1:5600", "a/b")])
def test_what_can_never_work_is_refused_at_once(language: str, address: str, simulation: str) -> None:
    command = [*built(language).say, "say", address, simulation]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=15)
    assert done.returncode == 1 and done.stderr
