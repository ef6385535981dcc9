"""What a source has to say and hasn't sent yet: handed over by the simulation, taken by the link's thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from scalesim_client.events import Event
from scalesim_client.state import NewestState

MAX_WAITING_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to send, packed and in order, and then the snapshot that is due, if any, as of clock value
    `now`."""

    events: list[bytes]
    snapshot: list[bytes] | None
    now: float | None


class Outbound:
    """A bounded queue over the newest state: what the queue can't hold is said later, by a snapshot.

    Every method is safe to call from any thread and returns at once, except `wait_settled`.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.dropped = 0
        self._changed = threading.Condition(threading.Lock())
        self._state = NewestState()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._snapshot_due = False
        self._keeping = True
        self._live = False
        self._in_hand = False

    def put(self, event: Event, packed: bytes) -> None:
        """Take over one event; `packed` is the same in msgpack."""
        with self._changed:
            self._state.apply(event)
            if not self._keeping:
                self.dropped += 1
                return
            if self._waiting_bytes + len(packed) > MAX_WAITING_BYTES:
                self._drop()
            self._waiting.append(packed)
            self._waiting_bytes += len(packed)

    def take(self) -> Batch:
        """Hand out all that waits; it counts as left to send until `settled` or `lost`."""
        with self._changed:
            snapshot = self._state.snapshot() if self._snapshot_due else None
            batch = Batch(self._waiting, snapshot, self._state.now)
            self._waiting, self._waiting_bytes = [], 0
            self._snapshot_due = False
            self._in_hand = bool(batch.events) or snapshot is not None
            return batch

    def count_sent(self, events: int) -> None:
        """Report that `events` events have been sent."""
        with self._changed:
            self.sent += events

    def settled(self) -> bool:
        """Report that all that was taken has been sent; return whether more waits by now."""
        with self._changed:
            self._in_hand = False
            self._changed.notify_all()
            return bool(self._waiting) or self._snapshot_due

    def require_snapshot(self) -> None:
        """Have the next batch end with a snapshot."""
        with self._changed:
            self._snapshot_due = True

    def connected(self) -> None:
        """Report that the daemon listens: events are kept for it from now on."""
        with self._changed:
            self._keeping = self._live = True
            self._changed.notify_all()

    def lost(self, in_hand: int) -> None:
        """Report that the daemon is away, and that `in_hand` of the events taken were not sent.

        Nothing is kept until `connected`; then a snapshot is due.
        """
        with self._changed:
            self.dropped += in_hand
            self._drop()
            self._keeping = self._live = self._in_hand = False

    def wait_settled(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until the daemon listens and nothing is left to send."""
        with self._changed:
            return self._changed.wait_for(self._is_settled, timeout)

    def _is_settled(self) -> bool:
        return self._live and not (self._waiting or self._snapshot_due or self._in_hand)

    def _drop(self) -> None:
        self.dropped += len(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        self._snapshot_due = True
