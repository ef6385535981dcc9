"""The KV event feed: numbered batches over ZeroMQ PUB, and a replay of the last ones over ROUTER."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from itertools import count

import zmq
import zmq.asyncio

from scalesim_adapters.emulator.config import EmulatorConfig
from scalesim_adapters.emulator.events import KVEvent, encode_batch

END = b"\xff" * 8
"""The sequence number that ends a replay: -1."""


class Feed:
    """Publishes `[topic, sequence number, payload]` from 0 on, as vLLM does.

    An endpoint with a wildcard or a path is bound, a concrete address is connected to; the replay endpoint is
    always bound. A replay request is `[empty, first number]` from a DEALER; the answers are `[empty, topic,
    number, payload]` of every kept batch from there, then an empty one numbered -1. Needs an endpoint in
    `config`.
    """

    def __init__(self, config: EmulatorConfig) -> None:
        if config.endpoint is None:
            raise ValueError("the feed is off")
        self._topic = config.topic.encode()
        self._numbers = count()
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=config.buffer_steps)
        self._unsent = 0
        self._context = zmq.Context()
        self._pub = self._context.socket(zmq.PUB)
        self._pub.set_hwm(config.hwm)
        if (
            "*" in config.endpoint
            or "::" in config.endpoint
            or config.endpoint.startswith(("ipc:", "inproc:"))
        ):
            self._pub.bind(config.endpoint)
        else:
            self._pub.connect(config.endpoint)
        self._replay = zmq.asyncio.Socket(self._context, zmq.ROUTER)
        if config.replay_endpoint is not None:
            self._replay.bind(config.replay_endpoint)

    def lose(self, batches: int) -> None:
        """Don't send the next `batches` batches; they are numbered and can be replayed."""
        self._unsent = batches

    def publish(self, events: Sequence[KVEvent]) -> None:
        """Send one batch."""
        number, payload = next(self._numbers), encode_batch(time.time(), events)
        self._kept.append((number, payload))
        if self._unsent:
            self._unsent -= 1
        else:
            self._pub.send_multipart([self._topic, number.to_bytes(8, "big"), payload])

    async def serve_replays(self) -> None:
        """Answer replay requests until cancelled; malformed ones are ignored, as vLLM does."""
        while True:
            frames = await self._replay.recv_multipart()
            if len(frames) != 3:
                continue
            client, first = frames[0], int.from_bytes(frames[2], "big")
            for number, payload in [kept for kept in self._kept if kept[0] >= first]:
                await self._replay.send_multipart(
                    [client, b"", self._topic, number.to_bytes(8, "big"), payload]
                )
            await self._replay.send_multipart([client, b"", b"", END, b""])

    def close(self) -> None:
        """Close the sockets; what is unsent is lost."""
        self._pub.close(linger=0)
        self._replay.close(linger=0)
        self._context.term()
