"""Between a daemon and a plug-in: passes dues on as those of other agents. The control of what prediction brings, since
whoever is ranked by them is ranked by nothing, and yet not by recency."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Final

import msgspec
import zmq

from scalesim_adapters.dues import TOPIC, DueMessage

POLL_MILLISECONDS: Final = 50


class Deck:
    """The dues of `agents`, dealt out to them anew whenever a clock ticks. Pure."""

    def __init__(self, agents: Sequence[str], rng: Random) -> None:
        self._agents = list(agents)
        self._dealt = list(agents)
        self._rng = rng
        self._clocks: dict[str, tuple[float, float]] = {}
        self._dues: dict[str, tuple[str, float] | None] = {}

    def take(self, message: DueMessage) -> DueMessage:
        """Take in what the daemon says; return all of it, told of other agents."""
        before = self._clocks
        if message.type == "snapshot":
            self._clocks, self._dues = dict(message.clocks), dict(message.dues)
        else:
            self._clocks, self._dues = self._clocks | message.clocks, self._dues | message.dues
        if self._clocks != before:
            self._rng.shuffle(self._dealt)
        pairs = zip(self._agents, self._dealt, strict=True)
        return DueMessage("snapshot", self._clocks, {agent: self._dues.get(other) for agent, other in pairs})


@contextmanager
def shuffling(source: str, target: str, agents: Sequence[str], seed: int) -> Iterator[None]:
    """Broadcast at `target` what is broadcast at `source`, as a daemon would, with the dues of `agents` (by their keys)
    shuffled."""
    context = zmq.Context()
    sockets = context.socket(zmq.SUB), context.socket(zmq.XPUB)
    done = threading.Event()
    deck = Deck(agents, Random(seed))
    thread = threading.Thread(target=_pass_on, args=(*sockets, deck, done), name="shuffle")
    try:
        sockets[0].connect(source)
        sockets[0].subscribe(TOPIC)
        sockets[1].bind(target)
        thread.start()
        yield
    finally:
        done.set()
        if thread.is_alive():
            thread.join()
        context.destroy(linger=0)


def _pass_on(source: zmq.Socket[bytes], target: zmq.Socket[bytes], deck: Deck, done: threading.Event) -> None:
    """Number messages from now on, which is more than any daemon before had counted to."""
    number = time.time_ns()
    while not done.is_set():
        if source.poll(POLL_MILLISECONDS):
            message = msgspec.msgpack.decode(source.recv_multipart()[2], type=DueMessage)
            payload = msgspec.msgpack.encode(deck.take(message))
            target.send_multipart([TOPIC, number.to_bytes(8, "big"), payload])
            number += 1
