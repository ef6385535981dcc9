"""The thread that owns the socket to the daemon: shakes hands, sends what waits, restates when asked."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum, auto
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from scalesim_client.codec import decode, join_events, join_snapshot, pack_event, pack_frames, unpack_frames
from scalesim_client.curve import Curve
from scalesim_client.events import MAX_EVENTS_PER_MESSAGE, StreamClosed, StreamOpened
from scalesim_client.outbound import Outbound

SEND_HIGH_WATER_MARK = 1000
PART_BYTES = 1024 * 1024
START_GRACE = 1.0
WELCOME_WAIT = 2.0
RETRY_WAIT = 0.05
LINGER_MS = 500
HEARTBEAT_MS = 5000
RECONNECT_MAX_MS = 2000
REFUSALS = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
LONGEST_WAIT = 2**31 / 1000 - 1
"""In seconds: what ZeroMQ can wait for."""

logger = logging.getLogger("scalesim_client")


class Phase(Enum):
    """How far the connection is."""

    AWAY = auto()
    """No connection."""
    OPENING = auto()
    """Connected; `stream.opened` is sent, its welcome awaited."""
    OPEN = auto()
    """Welcome: events go out."""
    REFUSED = auto()
    """The daemon doesn't take this stream; another connection may."""


class Link(threading.Thread):
    """Sends what `outbound` holds to the daemon at `address` (ZeroMQ), opening the stream with `opened`.

    Raises `ValueError` for an address that ZeroMQ can't connect to. The thread ends with `stop`, or with the
    process.
    """

    def __init__(
        self,
        address: str,
        opened: StreamOpened,
        outbound: Outbound,
        snapshot_every: float,
        curve: Curve | None = None,
    ) -> None:
        super().__init__(name=f"scalesim-{opened.source}", daemon=True)
        self._opened = opened
        self._outbound = outbound
        self._snapshot_every = min(snapshot_every, LONGEST_WAIT)
        self._phase = Phase.AWAY
        self._address = address
        self._turned_away = False
        self._knock_at: float | None = None
        self._seq = 0
        self._restated_up_to = -1
        self._outbox: deque[tuple[int, bytes]] = deque()
        self._blocked = False
        self._more_waits = False
        self._stop_by: float | None = None
        self._woken = False
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._context = zmq.Context()
        try:
            self._socket, self._monitor = _connect(self._context, address, curve)
        except zmq.ZMQError as error:
            self._close()
            raise ValueError(f"can't connect to {address!r}: {error}") from error

    def wake(self) -> None:
        """Have the thread look at what waits; returns at once."""
        if not self._woken:
            self._woken = True
            # An error says that the pipe is full, so the thread is awake, or closed, so it has ended.
            with suppress(OSError):
                self._wake_out.send(b"\0")

    def stop(self, timeout: float) -> None:
        """End the thread, waiting for it at most about `timeout` seconds: what waits is sent, then
        `stream.closed`."""
        self._stop_by = time.monotonic() + timeout
        self._woken = False
        self.wake()
        self.join(timeout + LINGER_MS / 1000)

    def run(self) -> None:
        """Serve the connection until stopped."""
        poller = zmq.Poller()
        poller.register(self._wake_in, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        self._next_snapshot = time.monotonic() + self._snapshot_every
        self._deadline: float | None = time.monotonic() + START_GRACE
        try:
            while not self._is_over():
                poller.register(self._socket, zmq.POLLIN | (zmq.POLLOUT if self._blocked else 0))
                poller.poll(self._wait_ms())
                self._rest()
                self._follow_connection()
                self._listen()
                self._watch_time()
                self._send_waiting()
            if self._phase is Phase.OPEN:
                self._transmit(join_events(time.time(), [pack_event(StreamClosed())]))
        finally:
            self._lose()
            self._close()

    def _is_over(self) -> bool:
        if self._stop_by is None:
            return False
        if self._phase is Phase.OPEN and self._outbound.wait_settled(0):
            return True
        hopeless = self._phase is Phase.REFUSED or (self._phase is Phase.AWAY and self._deadline is None)
        return hopeless or time.monotonic() >= self._stop_by

    def _wait_ms(self) -> int:
        if self._more_waits:
            return 0
        moments = [self._next_snapshot]
        others = (self._deadline, self._stop_by, self._knock_at)
        moments += [moment for moment in others if moment is not None]
        return max(0, int((min(moments) - time.monotonic()) * 1000) + 1)

    def _rest(self) -> None:
        """Empty the wake-up pipe, and only then take the mark away: the other way round, a byte of a wake-up
        that follows the mark's removal could be swallowed, and no later one would be sent."""
        with suppress(BlockingIOError):
            self._wake_in.recv(4096)
        self._woken = False

    def _follow_connection(self) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._turned_away, self._knock_at = False, None
                self._open()
            elif event & REFUSALS:
                if not self._turned_away:
                    logger.warning(
                        "the daemon ends the handshake: it goes, or it takes keys, or none, or others (curve)"
                    )
                self._turned_away = True
                self._knock_at = time.monotonic() + RECONNECT_MAX_MS / 1000
            elif event == zmq.EVENT_DISCONNECTED:
                if self._phase is Phase.OPEN:
                    logger.info("the daemon has gone; its return is awaited")
                self._phase, self._deadline = Phase.AWAY, None
                self._lose()

    def _open(self) -> None:
        self._phase = Phase.OPENING
        sent = self._transmit(join_events(time.time(), [pack_event(self._opened)]))
        self._deadline = time.monotonic() + (WELCOME_WAIT if sent else RETRY_WAIT)

    def _listen(self) -> None:
        while self._socket.poll(0):
            try:
                _, _, payload = unpack_frames(self._socket.recv_multipart())
                controls = decode(payload)[1]
            except ValueError as error:
                logger.debug("control message ignored: %s", error)
                continue
            for control in controls:
                if isinstance(control, dict):
                    self._obey(control)

    def _obey(self, control: dict[str, Any]) -> None:
        match control:
            case {"type": "welcome", "error": str(error)}:
                logger.warning("the daemon refuses stream %r: %s", self._opened.source, error)
                self._phase, self._deadline = Phase.REFUSED, None
                self._lose()
            case {"type": "welcome"}:
                self._phase, self._deadline = Phase.OPEN, None
                self._outbound.connected()
                if control.get("resync"):
                    self._outbound.require_snapshot()
            case {"type": "resync"} if self._phase is Phase.OPEN:
                last_seq = control.get("last_seq")
                self._restate(last_seq if isinstance(last_seq, int) else -1)

    def _restate(self, last_seq: int) -> None:
        """Answer a resync of a daemon that has heard up to `last_seq`, -1 where it doesn't know this
        stream."""
        if last_seq < 0:
            self._outbound.require_snapshot()
            self._open()
        elif last_seq >= self._restated_up_to:
            # Otherwise the answer is on its way already.
            self._outbound.require_snapshot()

    def _watch_time(self) -> None:
        now = time.monotonic()
        if self._knock_at is not None and now >= self._knock_at:
            self._knock_at = None
            self._knock_again()
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            self._lose()
            if self._phase is Phase.OPENING:
                self._open()
        if now >= self._next_snapshot:
            self._next_snapshot = now + self._snapshot_every
            if self._phase is Phase.OPEN:
                self._outbound.require_snapshot()

    def _knock_again(self) -> None:
        """ZeroMQ gives up a connection that was refused; the daemon may know the key by now, or ask for none."""
        with suppress(zmq.ZMQError):
            self._socket.disconnect(self._address)
        self._socket.connect(self._address)

    def _send_waiting(self) -> None:
        self._blocked = self._more_waits = False
        if self._phase is not Phase.OPEN:
            return
        if not self._outbox:
            self._refill()
        while self._outbox:
            events, payload = self._outbox[0]
            if not self._transmit(payload):
                self._blocked = True
                return
            self._outbox.popleft()
            self._outbound.count_sent(events)
        self._more_waits = self._outbound.settled()

    def _refill(self) -> None:
        batch = self._outbound.take()
        ts = time.time()
        self._outbox.extend((len(chunk), join_events(ts, chunk)) for chunk in _chunks(batch.events))
        if batch.snapshot is not None:
            parts = list(_chunks(batch.snapshot)) or [[]]
            self._outbox.extend(
                (0, join_snapshot(ts, part, len(parts), chunk, batch.now)) for part, chunk in enumerate(parts)
            )
            self._restated_up_to = self._seq + len(self._outbox) - 1
            self._next_snapshot = time.monotonic() + self._snapshot_every

    def _transmit(self, payload: bytes) -> bool:
        try:
            self._socket.send_multipart(pack_frames(self._opened.source, self._seq, payload), zmq.NOBLOCK)
        except zmq.Again:
            return False
        self._seq += 1
        return True

    def _lose(self) -> None:
        self._outbound.lost(sum(events for events, _ in self._outbox))
        self._outbox.clear()

    def _close(self) -> None:
        self._context.destroy(linger=LINGER_MS)
        self._wake_out.close()
        self._wake_in.close()


def _connect(
    context: zmq.Context[zmq.Socket[bytes]], address: str, curve: Curve | None
) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    dealer = context.socket(zmq.DEALER)
    dealer.setsockopt(zmq.SNDHWM, SEND_HIGH_WATER_MARK)
    dealer.setsockopt(zmq.LINGER, LINGER_MS)
    # Nothing is queued for a daemon that isn't there: a send without a connection fails at once.
    dealer.setsockopt(zmq.IMMEDIATE, 1)
    dealer.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    dealer.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    if curve is not None:
        dealer.setsockopt(zmq.CURVE_SERVERKEY, curve.server)
        dealer.setsockopt(zmq.CURVE_PUBLICKEY, curve.public)
        dealer.setsockopt(zmq.CURVE_SECRETKEY, curve.secret)
    monitor = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | REFUSALS)
    dealer.connect(address)
    return dealer, monitor


def _chunks(packed: list[bytes]) -> Iterator[list[bytes]]:
    """Split packed events into messages of at most 1,000 events and, one big event apart, about 1 MiB."""
    chunk: list[bytes] = []
    size = 0
    for event in packed:
        if chunk and (len(chunk) == MAX_EVENTS_PER_MESSAGE or size + len(event) > PART_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(event)
        size += len(event)
    if chunk:
        yield chunk
