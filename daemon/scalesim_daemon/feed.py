"""The feed's two ZeroMQ doors: a ROUTER that simulations connect to, and SUBs connected to publishers that bind.

Neither door ever waits for anything but its socket, and no message can end it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from time import monotonic

import structlog
import zmq
import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator

from scalesim_client.codec import decode, pack_control, pack_frames, unpack_frames
from scalesim_client.events import MAX_MESSAGE_BYTES
from scalesim_daemon.curve import Keys, guard
from scalesim_daemon.gate import Verdict
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.settings import ConfigError, CurveSettings, SubscribeSettings
from scalesim_daemon.wire import Refused, read_plain

ANONYMOUS = "anonymous"
FRAME_ALLOWANCE = 1024
# Messages of a connection that wait to be taken. Each may be as long as one may be: more would be our memory.
MOST_WAITING = 64
REPLAY_SECONDS = 2.0
# A host that is gone without a word leaves its connection open for ever, and a publisher that has come back there is
# not connected to again: so the kernel asks who has been silent for a minute, and gives up after another (tcp(7)).
KEEPALIVE = (
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 60),
    (zmq.TCP_KEEPALIVE_INTVL, 15),
    (zmq.TCP_KEEPALIVE_CNT, 4),
)
# Of what is wrong with a message its sender decides how long it is.
LONGEST_REASON = 300
# How long a flood is taken in at a time, before others on this loop have their turn.
TURN_SECONDS = 0.002

log = structlog.get_logger(__name__)


class Sampler:
    """Logs the first of each kind of refusal and then every 1,000th, so that a flood can't fill the log."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], int] = {}

    def refused(self, source: str, refusals: Sequence[Refused]) -> None:
        """Report what was ignored of a source's message."""
        for refusal in refusals:
            kind = (source[:64], refusal.type)
            if kind not in self._seen and len(self._seen) >= 1000:
                kind = ("other", "other")
            seen = self._seen[kind] = self._seen.get(kind, 0) + 1
            if seen % 1000 == 1:
                log.warning(
                    "event ignored",
                    source=source[:64],
                    type=refusal.type,
                    reason=refusal.reason[:LONGEST_REASON],
                    times=seen,
                )


class Feed:
    """Both doors, over one sidecar."""

    def __init__(
        self,
        sidecar: Sidecar,
        bind: str,
        subscribe: Sequence[SubscribeSettings],
        curve: CurveSettings | None = None,
    ) -> None:
        self._sidecar = sidecar
        self._subscribe = subscribe
        self._sampler = Sampler()
        self._context = zmq.asyncio.Context()
        self._router = self._socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._router.setsockopt(zmq.RCVHWM, MOST_WAITING)
        self._doorman: AsyncioAuthenticator | None = None
        self._keys: Keys | None = None
        try:
            if curve is not None:
                self._doorman, self._keys = guard(self._context, self._router, curve, "feed")
            self._router.bind(bind)
        except ConfigError:
            self.close()
            raise
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"feed.bind: {bind}: {error}") from error
        # The same socket without asyncio: what doesn't wait needs no future.
        self._plain: zmq.Socket[bytes] = zmq.Socket.shadow(self._router)
        self._numbers = count()

    @property
    def address(self) -> str:
        """The address that the ROUTER is bound to."""
        endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        return endpoint.rstrip("\0")

    async def run(self) -> None:
        """Serve both doors until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._route())
            for publisher in self._subscribe:
                group.create_task(self._follow(publisher))

    def close(self) -> None:
        """Close all sockets."""
        if self._doorman is not None:
            self._doorman.stop()
        self._context.destroy(linger=0)

    def _socket(self, kind: int) -> zmq.asyncio.Socket:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        for option, value in KEEPALIVE:
            socket.setsockopt(option, value)
        # A longer frame costs its sender the connection, and us no memory.
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES + FRAME_ALLOWANCE)
        return socket

    async def _route(self) -> None:
        while True:
            first = await self._router.recv_multipart(copy=False)
            self._serve(first[-1], first[0].bytes, [frame.bytes for frame in first[1:]])
            until = monotonic() + TURN_SECONDS
            # What has come meanwhile costs no turn of the loop each.
            with suppress(zmq.Again):
                while monotonic() < until:
                    self._serve(*self._receive())
            self._sidecar.take_in()
            await asyncio.sleep(0)

    def _receive(self) -> tuple[zmq.Frame, bytes, list[bytes]]:
        """Return a message that has come: its last frame as such, the connection, and all frames. Raises `zmq.Again`
        where there is none. Whether another frame follows is asked of the frame: the socket takes several times as long
        to tell."""
        receive = self._plain.recv
        identity, frames = receive(zmq.NOBLOCK), []
        while (frame := receive(zmq.NOBLOCK, copy=False)).more:
            frames.append(frame.bytes)
        frames.append(frame.bytes)
        return frame, identity, frames

    def _serve(self, last: zmq.Frame, identity: bytes, frames: Sequence[bytes]) -> None:
        """Take one message in, and answer where its sender has to know. A ROUTER never waits to send. Which key its
        sender has is known of a frame."""
        key = None if self._keys is None else str(last.get("User-Id")).encode()
        verdict = self._take(frames, identity, key)
        if verdict is None or not (verdict.welcome or verdict.resync):
            return
        reply = pack_control(
            "welcome" if verdict.welcome else "resync",
            last_seq=verdict.last_seq,
            resync=verdict.resync,
            error=verdict.error,
        )
        answer = [identity, *pack_frames("scalesimd", next(self._numbers), reply)]
        self._plain.send_multipart(answer)

    async def _follow(self, publisher: SubscribeSettings) -> None:
        socket = self._socket(zmq.SUB)
        socket.subscribe(b"")
        socket.connect(publisher.endpoint)
        seen = -1
        while True:
            frames = await socket.recv_multipart()
            seq = _sequence_of(frames)
            if publisher.replay is not None and seq is not None and seq > seen + 1:
                await self._replay(publisher.replay, seen + 1, seq)
            seen = seen if seq is None else seq
            self._take(frames)
            self._sidecar.take_in()
            # What has come already is received without a turn of the loop, here and in a replay.
            await asyncio.sleep(0)

    async def _replay(self, endpoint: str, start: int, stop: int) -> None:
        """Ask the publisher for messages `start` to `stop - 1`; what it no longer has stays a gap for the gate."""
        dealer = self._socket(zmq.DEALER)
        try:
            dealer.connect(endpoint)
            await dealer.send_multipart([b"", start.to_bytes(8, "big")])
            async with asyncio.timeout(REPLAY_SECONDS):
                while True:
                    _, *frames = await dealer.recv_multipart()
                    seq = _sequence_of(frames)
                    if seq is None or seq >= stop:
                        return
                    self._take(frames)
                    self._sidecar.take_in()
                    await asyncio.sleep(0)
        except TimeoutError:
            log.warning(
                "replay not answered", endpoint=endpoint, remedy="check the publisher's replay endpoint"
            )
        finally:
            dealer.close()

    def _take(
        self, frames: Sequence[bytes], peer: bytes | None = None, key: bytes | None = None
    ) -> Verdict | None:
        """Judge one message; return None where it isn't of our form at all."""
        try:
            if len(frames) == 1:
                topic, seq, payload = ANONYMOUS, None, frames[0]
            else:
                topic, seq, payload = unpack_frames(frames)
            # A recording has the maps as they were sent.
            plain = read_plain(payload) if self._sidecar.recorder is None else None
            raws = () if plain else decode(payload)[1]
        except ValueError as error:
            self._sidecar.gate.counts["malformed"] += 1
            self._sampler.refused("?", [Refused("?", str(error))])
            return None
        why = None if self._keys is None or key is None else self._keys.refusal(key, topic, raws)
        if why is not None:
            self._sidecar.gate.counts["foreign"] += 1
            self._sampler.refused(topic, [Refused("stream", why)])
            return Verdict(welcome=True, error=why)
        if plain:
            verdict = self._sidecar.admit_plain(topic, seq, plain, peer)
        else:
            verdict = self._sidecar.admit(topic, seq, raws, peer)
        if verdict.refused:
            self._sampler.refused(topic, verdict.refused)
        return verdict


def _sequence_of(frames: Sequence[bytes]) -> int | None:
    """Return a message's sequence number; None where it has none, or the number that ends a replay."""
    try:
        _, seq, _ = unpack_frames(frames)
    except ValueError:
        return None
    return seq if 0 <= seq < 2**63 else None
