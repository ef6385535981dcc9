"""One source's connection to the daemon: numbered messages that never wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import time

import msgspec
import zmq

from bench.soak.simulation import Event
from scalesim_client.codec import decode, pack_frames

HIGH_WATER_MARK = 1000
LINGER_MS = 60_000
"""What a closed socket has still to send waits for a daemon that is behind: what counts as lost, that has lost."""


class Voice:
    """What a publisher in C would do: a DEALER, and packed events. `sent` counts events, `waited` the messages that the
    socket didn't take at once: these are sent with the next."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, source: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.connect(address)
        self._source = source
        self._seq = 0
        self._late: deque[list[bytes]] = deque()
        self._encode = msgspec.msgpack.Encoder().encode
        self.sent = 0
        self.waited = 0

    def say(self, events: Sequence[Event]) -> None:
        """Send one message."""
        self._late.append(pack_frames(self._source, self._seq, self._encode([time(), events])))
        self._seq += 1
        self.sent += len(events)
        try:
            while self._late:
                self._socket.send_multipart(self._late[0], zmq.NOBLOCK)
                self._late.popleft()
        except zmq.Again:
            self.waited += 1

    def asked_again(self) -> bool:
        """Whether the daemon has asked for the whole state since the last call: something was lost."""
        asked = False
        while self._socket.poll(0):
            for control in decode(self._socket.recv_multipart()[-1])[1]:
                asked |= bool(control.get("resync"))
        return asked

    def close(self) -> None:
        """End the stream, and the connection once all is sent."""
        self.say([{"type": "stream.closed"}])
        self._socket.close()
