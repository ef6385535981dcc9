"""What a simulation says by its publisher, from the opening of its stream to the end."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest
from router import Router

from scalesim_client.events import (
    MAX_MESSAGE_BYTES,
    Event,
    StepAdvanced,
    StreamClosed,
)
from scalesim_client.publisher import Publisher

DEADLINE = 10.0


def is_step(now: float) -> Any:
    return lambda event: event["type"] == "step.advanced" and event["now"] == now


def test_a_stream_opens_and_waits_for_its_welcome(router: Router) -> None:
    with Publisher(
        "village", "sim_seconds", address=router.address, source="west", incarnation=5
    ) as publisher:
        publisher.step(1)
        opened = router.receive()
        assert (opened.topic, opened.seq) == ("west", 0)
        assert opened.events == [
            {
                "type": "stream.opened",
                "simulation": "village",
                "source": "west",
                "incarnation": 5,
                "clock": "sim_seconds",
                "schema_version": "1.0",
            }
        ]
        assert not publisher.flush(0)
        assert publisher.sent == 0
        router.reply(opened, "welcome")
        assert publisher.flush(DEADLINE)
        message = router.receive()
        assert (message.topic, message.seq) == ("west", 1)
        assert message.events == [{"type": "step.advanced", "now": 1}]
        assert (publisher.sent, publisher.dropped, publisher.invalid) == (1, 0, 0)


def test_everything_arrives_in_order_and_numbered(router: Router) -> None:
    with Publisher("village", address=router.address) as publisher:
        router.welcome()
        for step in range(20_000):
            publisher.step(step)
        expected_seq, steps = 1, []
        while len(steps) < 20_000:
            message = router.receive()
            assert message.seq == expected_seq
            expected_seq += 1
            steps += [event["now"] for event in message.events]
        assert steps == list(range(20_000))
        assert publisher.flush(DEADLINE)
        assert (publisher.sent, publisher.dropped) == (20_000, 0)


@pytest.mark.parametrize(
    "frames",
    [
        [b"x"],
        [b"scalesimd", b"\0" * 8, b"junk"],
        [
            b"scalesimd",
            b"\0" * 8,
            b'[0,[5,{"type":"later.invention"},{"type":"resync","last_seq":"x","y":1}]]',
        ],
    ],
)
def test_an_odd_reply_does_no_harm(router: Router, frames: list[bytes]) -> None:
    with Publisher("village", address=router.address) as publisher:
        opened = router.receive()
        router.socket.send_multipart([opened.sender, *frames])
        router.reply(opened, "welcome")
        publisher.step(1)
        assert router.receive().types == ["step.advanced"]


def test_bad_events_are_counted_and_cost_their_neighbours_nothing(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="scalesim_client")
    odd: Any = 17
    events: list[Event] = [StepAdvanced(now=1), StreamClosed(), odd, StepAdvanced(now=2)]
    with Publisher("village", address=router.address) as publisher:
        router.welcome()
        publisher.send(*events)
        publisher.activity("", until=1)
        publisher.activity("Ada", for_=-1)
        publisher.activity("Ada", for_=float("nan"))
        publisher.activity("Ada")
        publisher.step(odd and "soon")
        publisher.moved(odd, place="park")
        publisher.bind("Ada", messages=[{"content": object()}])
        publisher.bind("Ada", text="x" * MAX_MESSAGE_BYTES)
        publisher.bind("Ada", messages=[{"role": "user", "content": b"binary"}])
        publisher.bind("Ada", messages=[{f"key {number}": None for number in range(1025)}])
        publisher.bind("Ada", messages=[{1: "a key that is no text"}])
        publisher.moved("Ada", place=odd and b"park")
        publisher.step(3)
        heard = router.events_until(is_step(3))
    assert [event["now"] for event in heard] == [1, 2, 3]
    assert publisher.invalid == 14
    logged = [record.getMessage().split()[0] for record in caplog.records]
    assert logged == [
        "stream.closed",
        "int",
        "agent.activity_started",
        "step.advanced",
        "agent.moved",
        "memory.bound",
    ]


def test_an_invocation_ends_however_its_block_ends(router: Router) -> None:
    with Publisher("village", address=router.address) as publisher:
        router.welcome()
        with publisher.invocation("Ada") as request:
            pass
        with pytest.raises(RuntimeError, match="engine"), publisher.invocation("Bob", "r7"):
            raise RuntimeError("engine")
        publisher.step(1)
        assert router.events_until(is_step(1))[:-1] == [
            {"type": "invocation.started", "agent": "Ada", "request": request},
            {"type": "invocation.finished", "agent": "Ada", "request": request},
            {"type": "invocation.started", "agent": "Bob", "request": "r7"},
            {"type": "invocation.finished", "agent": "Bob", "request": "r7"},
        ]


def test_asyncio_code_uses_the_same_publisher(router: Router) -> None:
    async def call(publisher: Publisher, everyone_calls: asyncio.Barrier) -> str:
        with publisher.invocation("Ada") as request:
            await everyone_calls.wait()
            return request

    async def simulate() -> set[str]:
        with Publisher("village", address=router.address) as publisher:
            await asyncio.to_thread(router.welcome)
            barrier = asyncio.Barrier(3)
            requests = await asyncio.gather(*(call(publisher, barrier) for _ in range(3)))
            publisher.step(1)
            assert await asyncio.to_thread(publisher.flush, DEADLINE)
            return set(requests)

    requests = asyncio.run(simulate())
    heard = router.events_until(is_step(1))[:-1]
    assert [event["type"] for event in heard] == ["invocation.started"] * 3 + ["invocation.finished"] * 3
    assert {event["request"] for event in heard[:3]} == {event["request"] for event in heard[3:]} == requests
    assert len(requests) == 3


def test_closing_sends_what_waits_and_then_says_so(router: Router) -> None:
    publisher = Publisher("village", address=router.address)
    router.welcome()
    for step in range(5000):
        publisher.step(step)
    publisher.close()
    heard = router.events_until(lambda event: event["type"] == "stream.closed")
    assert [event["now"] for event in heard[:-1]] == list(range(5000))
    publisher.step(5000)
    publisher.close()
    assert (publisher.sent, publisher.dropped) == (5000, 1)
    assert not publisher.flush(0)


def test_closing_without_a_daemon_takes_no_longer_than_promised(router: Router) -> None:
    address = router.address
    router.context.destroy(linger=0)
    publisher = Publisher("village", address=address)
    publisher.step(1)
    began = time.monotonic()
    publisher.close()
    assert time.monotonic() - began < 3
    assert publisher.dropped == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"simulation": "a/b"},
        {"simulation": ""},
        {"simulation": "s", "source": ""},
        {"simulation": "s", "clock": "sundial"},
        {"simulation": "s", "address": "tcp://nowhere"},
        {"simulation": "s", "address": "5600"},
    ],
)
def test_what_can_never_work_is_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Publisher(**arguments)
