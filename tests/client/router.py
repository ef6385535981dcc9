"""The daemon's side of the ROUTER door, step by step, for tests of the publisher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import zmq

from scalesim_client.codec import decode, pack_control, pack_frames, unpack_frames

PATIENCE_MS = 10_000


@dataclass(frozen=True)
class Message:
    sender: bytes
    topic: str
    seq: int
    events: list[dict[str, Any]]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


class Router:
    def __init__(self, address: str = "tcp://127.0.0.1:*", receive_mark: int = 1000) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.RCVHWM, receive_mark)
        self.socket.bind(address)
        self.address = self.socket.getsockopt(zmq.LAST_ENDPOINT).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.context.destroy(linger=0)

    def receive(self) -> Message:
        assert self.socket.poll(PATIENCE_MS), "nothing was received"
        sender, *frames = self.socket.recv_multipart()
        topic, seq, payload = unpack_frames(frames)
        return Message(sender, topic, seq, decode(payload)[1])

    def reply(
        self,
        to: Message,
        kind: Literal["welcome", "resync"],
        *,
        last_seq: int | None = None,
        resync: bool = False,
        error: str | None = None,
    ) -> None:
        seq = to.seq if last_seq is None else last_seq
        payload = pack_control(kind, last_seq=seq, resync=resync, error=error)
        self.socket.send_multipart([to.sender, *pack_frames("scalesimd", 0, payload)])

    def welcome(self, *, resync: bool = False) -> Message:
        opened = self.receive()
        assert opened.types == ["stream.opened"]
        self.reply(opened, "welcome", resync=resync)
        return opened

    def events_until(self, last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        while not (events and last(events[-1])):
            events.extend(self.receive().events)
        return events

    def snapshot(self) -> tuple[list[Message], list[dict[str, Any]]]:
        """Receive up to a snapshot's last part; return its messages and the events in them."""
        parts: list[Message] = []
        while not parts or len(parts) < parts[-1].events[0]["of"]:
            message = self.receive()
            if message.types == ["state.snapshot"]:
                parts.append(message)
        assert [part.events[0]["part"] for part in parts] == list(range(len(parts)))
        return parts, [event for part in parts for event in part.events[0]["events"]]
