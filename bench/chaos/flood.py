"""A flood on the feed: another simulation that never rests, junk, and messages beyond every limit."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from random import Random
from typing import Any

import zmq
import zmq.asyncio

from scalesim_client.codec import pack_frames
from scalesim_client.events import MAX_MESSAGE_BYTES

SIMULATION = "flood"
AGENTS = 200
PER_TURN = 20
TURN_SECONDS = 0.01
"""Together some 2,000 messages a second: the play beside it says about 30."""


class Flood:
    """What comes to the feed at `address`; `sent` counts the events of it."""

    def __init__(self, address: str, random: Random) -> None:
        self.sent = 0
        self._address = address
        self._random = random

    async def run(self) -> None:
        """Send until cancelled, and then say goodbye."""
        with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self._address)
            opened = {"type": "stream.opened", "simulation": SIMULATION, "source": SIMULATION}
            await _send(
                socket, 0, opened | {"incarnation": time.time_ns(), "clock": "step", "schema_version": "1.0"}
            )
            try:
                while True:
                    for _ in range(PER_TURN):
                        await _send(socket, self.sent + 1, _event(self._random, self.sent + 1))
                        self.sent += 1
                    await _junk(socket, self._random)
                    await asyncio.sleep(TURN_SECONDS)
            finally:
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await _send(socket, self.sent + 1, {"type": "stream.closed"})
                socket.setsockopt(zmq.LINGER, 1000)


def _event(random: Random, seq: int) -> dict[str, Any]:
    agent = f"a{random.randrange(AGENTS)}"
    match random.randrange(4):
        case 0:
            return {"type": "step.advanced", "now": seq}
        case 1:
            return {"type": "agent.activity_started", "agent": agent, "for": random.randrange(50)}
        case 2:
            return {"type": "memory.bound", "agent": agent, "token_ids": [random.randrange(1000)] * 64}
        case _:
            return {"type": "agent.woken", "agent": agent}


async def _send(socket: zmq.asyncio.Socket, seq: int, event: dict[str, Any]) -> None:
    await socket.send_multipart(pack_frames(SIMULATION, seq, json.dumps([time.time(), [event]]).encode()))


async def _junk(socket: zmq.asyncio.Socket, random: Random) -> None:
    match random.randrange(60):
        case 0:
            # Its sender loses the connection for that.
            await socket.send(bytes(MAX_MESSAGE_BYTES * 2))
        case 1:
            await socket.send_multipart([b"x"] * 40)
        case number if number < 30:
            await socket.send(random.randbytes(random.randrange(200)))
        case _:
            await socket.send_multipart([b"\xff", b"short", random.randbytes(40)])
