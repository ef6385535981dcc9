"""Every agent's next invocation as the daemon broadcasts it, for what ranks evictions inside an engine process.

A message has the frames `[b"dues", seq (8 bytes, big-endian), payload]`; the payload is a msgpack map
`{"type": "snapshot" | "delta", "clocks": {clock: [now, wall seconds per unit]}, "dues": {agent: [clock, due] | null}}`.
A snapshot replaces everything, a delta changes what it names, an empty delta says that the daemon lives. Agents are
named `<simulation>/<agent>`, which is also the `session_id` of their requests. Standard library, zmq and msgspec only.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import zmq
from zmq.auth import load_certificate
from zmq.utils.monitor import recv_monitor_message

TOPIC = b"dues"
SILENCE_SECONDS = 2.0
POLL_MILLISECONDS = 100
ASK_AGAIN_SECONDS = 0.5
KNOCK_AGAIN_SECONDS = 2.0
REFUSALS = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)

log = logging.getLogger(__name__)


class DueMessage(msgspec.Struct, frozen=True):
    """One payload. A due of minus infinity is nearer than any other."""

    type: Literal["snapshot", "delta"]
    clocks: dict[str, tuple[float, Annotated[float, msgspec.Meta(gt=0)]]]
    dues: dict[str, tuple[str, float] | None]

    def __post_init__(self) -> None:
        """Raise `ValueError` for what can't be ordered: msgspec makes a `ValidationError` of it."""
        if not all(math.isfinite(number) for clock in self.clocks.values() for number in clock):
            raise ValueError("a clock's value and pace are finite")
        if any(due is not None and math.isnan(due[1]) for due in self.dues.values()):
            raise ValueError("a due is a number")


class Watch:
    """Collects the agents whose due has changed since it was last asked."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._changed: set[str] = set()

    def take(self) -> set[str]:
        """Return the agents that changed since the last call. A clock's tick changes no agent."""
        if not self._changed:
            return set()
        with self._lock:
            changed, self._changed = self._changed, set()
        return changed

    def note(self, agents: set[str]) -> None:
        """Add changed agents; the caller holds the table's lock."""
        self._changed |= agents


class DueTable:
    """What was heard last. One thread applies messages, another may read; `wall` is the monotonic time in seconds.
    `version` grows with every message that says something."""

    def __init__(self, silence: float = SILENCE_SECONDS) -> None:
        self.silence = silence
        self.version = 0
        self._clocks: dict[str, tuple[float, float]] = {}
        self._dues: dict[str, tuple[str, float]] = {}
        self._heard: float | None = None
        self._watches: list[Watch] = []
        self._lock = threading.Lock()

    def apply(self, payload: Mapping[str, Any] | DueMessage, wall: float) -> bool:
        """Take in a payload; return False, and change nothing, where it is malformed or a delta before the first
        snapshot."""
        if isinstance(payload, DueMessage):
            message = payload
        else:
            try:
                message = msgspec.convert(payload, DueMessage)
            except msgspec.ValidationError:
                return False
        if message.type == "delta" and self._heard is None:
            return False
        with self._lock:
            changed = self._replace(message) if message.type == "snapshot" else self._change(message)
            for watch in self._watches:
                watch.note(changed)
        if message.clocks or changed:
            self.version += 1
        self._heard = wall
        return True

    def stale(self, wall: float) -> bool:
        """Whether nothing has been heard for `silence` seconds: then nobody should rank by this table."""
        heard = self._heard
        return heard is None or wall - heard >= self.silence

    def seconds(self, agent: str | None) -> float:
        """Return the agent's invocation distance in wall seconds; infinity where none is foreseen."""
        return math.inf if agent is None else max(0.0, self.nearness(agent))

    def nearness(self, agent: str) -> float:
        """Return the agent's distance as `gap` gives it: below 0 where the due has passed."""
        due = self._dues.get(agent)
        return math.inf if due is None else self.gap(*due)

    def due(self, agent: str) -> tuple[str, float] | None:
        """Return the agent's clock and due on it; None where no invocation is foreseen."""
        return self._dues.get(agent)

    def gap(self, clock: str, due: float) -> float:
        """Return how many wall seconds lie between a clock's now and a due, below 0 where it has passed: dues of
        different clocks compare by this. Infinity on a clock never heard of."""
        known = self._clocks.get(clock)
        return math.inf if known is None else (due - known[0]) * known[1]

    def watch(self) -> Watch:
        """Return a new watch; every agent that has a due counts as changed at first."""
        watch = Watch(self._lock)
        with self._lock:
            watch.note(set(self._dues))
            self._watches.append(watch)
        return watch

    def __len__(self) -> int:
        """Return how many agents have a due."""
        return len(self._dues)

    def _replace(self, message: DueMessage) -> set[str]:
        old = self._dues
        new = {agent: due for agent, due in message.dues.items() if due is not None and due[1] < math.inf}
        # A reader beside this thread finds every due's clock at any moment.
        self._clocks = self._clocks | message.clocks
        self._dues = new
        self._clocks = dict(message.clocks)
        return {agent for agent in old.keys() | new.keys() if old.get(agent) != new.get(agent)}

    def _change(self, message: DueMessage) -> set[str]:
        self._clocks.update(message.clocks)
        changed = set()
        for agent, due in message.dues.items():
            if due is None or due[1] == math.inf:
                if self._dues.pop(agent, None) is not None:
                    changed.add(agent)
            elif self._dues.get(agent) != due:
                self._dues[agent] = due
                changed.add(agent)
        return changed


class DueFeed:
    """Turns numbered messages into a table. Pure."""

    def __init__(self, table: DueTable) -> None:
        self.table = table
        self._last: int | None = None
        self._decoder = msgspec.msgpack.Decoder(DueMessage)

    def take(self, frames: Sequence[bytes], wall: float) -> bool:
        """Take one message; return False where something was missed, so that a snapshot is needed. Until it comes,
        deltas are passed over."""
        if len(frames) != 3 or len(frames[1]) != 8:
            return False
        try:
            message = self._decoder.decode(frames[2])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MemoryError):
            self._last = None
            return False
        seq = int.from_bytes(frames[1], "big")
        if self.table.stale(wall):
            # Whoever speaks now may count from anywhere.
            self._last = None
        if self._last is not None and seq <= self._last:
            return True
        if message.type == "delta" and (self._last is None or seq != self._last + 1):
            self._last = None
            return False
        self._last = seq
        return self.table.apply(message, wall)


class DueKeys(NamedTuple):
    """ZeroMQ's CURVE, for a broadcast that takes known keys alone: the daemon's public key, and a pair of one's own."""

    server: bytes
    public: bytes
    secret: bytes

    @classmethod
    def load(cls, own: str | None, server: str | None) -> DueKeys | None:
        """Read an engine's `NAME.key_secret` and the daemon's `NAME.key`; None where neither is named. Raises
        `ValueError` for one without the other, and for files that hold no such keys."""
        if own is None and server is None:
            return None
        if own is None or server is None:
            raise ValueError(
                "a broadcast with keys takes two files: one's own keys, and the daemon's public one"
            )
        try:
            (public, secret), (theirs, _) = load_certificate(own), load_certificate(server)
        except (OSError, LookupError) as error:
            raise ValueError(f"no keys for the broadcast: {error}") from None
        if secret is None:
            raise ValueError(f"{own} holds no secret key: name the file that ends in .key_secret")
        return cls(theirs, public, secret)


class DueListener:
    """Keeps `table` current from a daemon thread. What comes in or breaks never reaches the engine: the table goes
    stale, and is current again soon after the daemon is back.

    `endpoint` is what the daemon's `broadcast.bind` says, `silence` how many seconds without a word make the table
    stale, `keys` are for a daemon that asks for some. Raises `ValueError` where ZeroMQ can't use the endpoint or keys.
    """

    def __init__(self, endpoint: str, silence: float = SILENCE_SECONDS, keys: DueKeys | None = None) -> None:
        self.table = DueTable(silence)
        self._endpoint = endpoint
        self._feed = DueFeed(self.table)
        self._asked = 0.0
        self._turned_away = False
        self._knock_at: float | None = None
        self._closing = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        # A daemon that hangs or a host that is gone is disconnected from, so that its return asks for a snapshot.
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        try:
            if keys is not None:
                self._socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server)
                self._socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
                self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
            self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | REFUSALS)
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            given = endpoint if keys is None else f"{endpoint} with these keys"
            raise ValueError(f"{given!r} is no endpoint of a broadcast: {error}") from error
        self._socket.subscribe(TOPIC)
        self._thread = threading.Thread(target=self._run, name="scalesim-dues", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. The table goes stale."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                if self._socket.poll(POLL_MILLISECONDS):
                    self._take(self._socket.recv_multipart(), monotonic())
                else:
                    self._follow_connection(monotonic())
        except zmq.ZMQError as error:
            log.warning("the broadcast of dues is no longer heard: %s", error)
        finally:
            self._context.destroy(linger=0)

    def _follow_connection(self, wall: float) -> None:
        """Say once that the daemon doesn't let us in, and knock again: ZeroMQ itself gives up there."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._turned_away, self._knock_at = False, None
                continue
            if not self._turned_away:
                log.warning(
                    "the daemon ends the handshake at %s: it takes keys, or none, or others (broadcast.curve)",
                    self._endpoint,
                )
            self._turned_away, self._knock_at = True, wall + KNOCK_AGAIN_SECONDS
        if self._knock_at is not None and wall >= self._knock_at:
            self._knock_at = None
            with suppress(zmq.ZMQError):  # It has given up, and knows of no such connection.
                self._socket.disconnect(self._endpoint)
            self._socket.connect(self._endpoint)

    def _take(self, frames: list[bytes], wall: float) -> None:
        if not self._feed.take(frames, wall) and wall - self._asked >= ASK_AGAIN_SECONDS:
            self._asked = wall
            # The daemon answers a new subscription with a snapshot.
            self._socket.unsubscribe(TOPIC)
            self._socket.subscribe(TOPIC)
