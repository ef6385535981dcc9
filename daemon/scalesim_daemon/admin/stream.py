"""What changes, as it changes: server-sent events for dashboards and `scalesimctl`, at most four times a second.

A client first hears a `snapshot` of everything, then changes alone: `mode`, `clocks`, `agents` and `decisions`. Dues
are values of their source's clock, so that a tick is one entry, whatever the number of agents: an agent's distance is
`due - now`, 0 at least. Whoever reads too slowly skips what came meanwhile, and hears a snapshot again. Looking at all
agents takes a tenth of the time at most; the more there are, the seldomer it is done, and others get their turn between
some hundred of them: `python -m bench.look` measures what it costs, and for how long it holds the loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from scalesim_adapters.base import Tier
from scalesim_daemon.api_models import ClockState, Decision
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.paging import in_turns
from scalesim_daemon.records import Record
from scalesim_daemon.report_agents import known_agents
from scalesim_daemon.settings import RunMode

LOOK_SECONDS = 0.25
LARGEST_SHARE = 0.1
HEARTBEAT_SECONDS = 15.0
HEARTBEAT = b": alive\n\n"
MOST_CLIENTS = 32
MOST_WAITING = 32
MOST_WAITING_BYTES = 32 << 20
NONE = b"[]"


class NotRunning(Exception):
    """Nothing changes here: the daemon's loop is not running, or stops."""


class TooManyClients(Exception):
    """As many clients listen as may."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One agent, as clients are told of it. `due` is null where no invocation is foreseen. `tier` is the nearest in
    which anything of its memory lies, `resident` the share of its prefix that is on a device, null where none is known.
    """

    key: str
    due: float | None
    source: str | None
    tier: Tier | None
    resident: float | None
    in_flight: int
    pinned: bool


class Seen(NamedTuple):
    """What there was at one look. `decisions` are those since the look before, of all that were counted."""

    mode: RunMode
    clocks: Mapping[str, Any]
    rows: Mapping[str, Row]
    counted: int
    decisions: Sequence[Record]


class Client:
    """One listener, with what it has yet to be sent: bounded."""

    def __init__(self) -> None:
        self.behind = True
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_WAITING)
        self._bytes = 0

    def tell(self, messages: Iterable[bytes]) -> None:
        """Let the client have messages; where they don't fit it is behind, and hears none of those that wait. One that
        alone is too long is the only one that waits."""
        for message in messages:
            too_long = self._bytes > 0 and self._bytes + len(message) > MOST_WAITING_BYTES
            if too_long or self._waiting.full():
                self.behind = True
                self._clear()
                return
            self._bytes += len(message)
            self._waiting.put_nowait(message)

    def end(self) -> None:
        """Tell the client nothing more."""
        self._clear()
        self._waiting.put_nowait(None)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield what the client is sent, and something now and then where there is nothing, so that a connection that
        is gone shows."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    message = await self._waiting.get()
            except TimeoutError:
                yield HEARTBEAT
                continue
            if message is None:
                return
            self._bytes -= len(message)
            yield message

    def _clear(self) -> None:
        self._bytes = 0
        while not self._waiting.empty():
            self._waiting.get_nowait()


class Hub:
    """Looks at the sidecar while anybody listens, and tells all clients what has changed since the last look."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._clients: set[Client] = set()
        self._joined = asyncio.Event()
        self._closed = False
        self._tokens = sidecar.tokens
        self._seen = Seen(sidecar.mode, {}, {}, 0, ())

    async def run(self) -> None:
        """Look and tell until cancelled."""
        while True:
            await self._joined.wait()
            self._joined.clear()
            started = monotonic()
            await self.look()
            took = monotonic() - started
            # Whoever joins is told soon; those who come and go cost no more than half of the time.
            await asyncio.sleep(took)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(LOOK_SECONDS, took / LARGEST_SHARE) - took):
                    await self._joined.wait()
            if self._clients:
                self._joined.set()
            else:
                self._seen = self._seen._replace(rows={})

    def close(self) -> None:
        """End all streams, and take no more."""
        self._closed = True
        self._end_all()

    def check_room(self) -> None:
        """Raise `NotRunning` or `TooManyClients` where no more clients may join."""
        if self._closed:
            raise NotRunning("the daemon is stopping")
        if len(self._clients) >= MOST_CLIENTS:
            raise TooManyClients(f"{MOST_CLIENTS} clients listen already")

    @contextmanager
    def joined(self) -> Iterator[Client]:
        """Let a client listen."""
        client = Client()
        self._clients.add(client)
        self._joined.set()
        try:
            yield client
        finally:
            self._clients.discard(client)

    async def look(self) -> None:
        """Take in what there is now, and tell what has changed."""
        if self._sidecar.tokens is not self._tokens:
            # Whoever listened with a token that is no more has to ask again.
            self._tokens = self._sidecar.tokens
            self._end_all()
            return
        before = self._seen
        now = self._seen = await self._see()
        following = [client for client in self._clients if not client.behind]
        changes = [message async for message in _changes(before, now)] if following else []
        behind = [client for client in self._clients if client.behind]
        snapshot = [await _snapshot(now)] if behind else []
        for client in following:
            client.tell(changes)
        for client in behind:
            client.behind = False
            client.tell(snapshot)

    async def _see(self) -> Seen:
        sidecar = self._sidecar
        rows: dict[str, Row] = {}
        async for batch in in_turns(_rows(sidecar)):
            rows.update((row.key, row) for row in batch)
        clocks = {
            source: ClockState.model_validate(clock).model_dump(mode="json")
            for source, (_, clock) in sidecar.population.clocks().items()
        }
        counted = sidecar.counts["decisions"]
        latest = list(islice(reversed(sidecar.decisions), counted - self._seen.counted))
        return Seen(sidecar.mode, clocks, rows, counted, latest[::-1])

    def _end_all(self) -> None:
        for client in self._clients:
            client.end()
        self._clients.clear()


async def _changes(before: Seen, now: Seen) -> AsyncIterator[bytes]:
    if now.mode is not before.mode:
        yield _event("mode", {"mode": now.mode})
    if now.clocks != before.clocks:
        yield _event("clocks", now.clocks)
    changed = (row for key, row in now.rows.items() if before.rows.get(key) != row)
    agents = await _encoded(changed)
    gone = sorted([key async for keys in in_turns(before.rows) for key in keys if key not in now.rows])
    if agents != NONE or gone:
        yield _event("agents", {"changed": msgspec.Raw(agents), "gone": gone})
    if now.decisions:
        told = [Decision.model_validate(one).model_dump(mode="json") for one in now.decisions]
        yield _event("decisions", told)


async def _snapshot(now: Seen) -> bytes:
    agents = msgspec.Raw(await _encoded(now.rows.values()))
    return _event("snapshot", {"mode": now.mode, "clocks": now.clocks, "agents": agents})


async def _encoded(rows: Iterable[Row]) -> bytes:
    parts = [msgspec.json.encode(batch)[1:-1] async for batch in in_turns(rows)]
    return b"[" + b",".join(parts) + b"]"


def _event(name: str, data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


class EventStream(StreamingResponse):
    """The answer to one client, which listens for as long as it is being sent."""

    def __init__(self, hub: Hub) -> None:
        super().__init__((), media_type="text/event-stream")
        self.headers.update({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until either side ends it."""
        with self._hub.joined() as client:
            self.body_iterator = client.lines()
            await super().__call__(scope, receive, send)


def _rows(sidecar: Sidecar) -> Iterator[Row]:
    board, agents, pins = sidecar.population.board, sidecar.population.agents, sidecar.pinned()
    links = sidecar.library.inventory()[0]
    for key in known_agents(sidecar):
        agent, nearest = agents.get(key), board.nearest(key)
        due, source = None, None
        if nearest is not None and math.isfinite(nearest[1].distance):
            due, source = nearest[1].at, nearest[0]
        lora = agent.memory.lora_name if agent is not None and agent.memory is not None else None
        resident = _resident(sidecar, key)
        tier = Tier.DEVICE if resident else _lora_tier(sidecar, lora, links)
        in_flight = agent.in_flight if agent is not None else 0
        yield Row(key, due, source, tier, resident, in_flight, key in pins)


def _resident(sidecar: Sidecar, key: str) -> float | None:
    shares = [
        tree.resident_blocks(key) / blocks
        for driver in sidecar.drivers.values()
        if (tree := driver.view.tree) is not None and (blocks := tree.prefix_blocks(key))
    ]
    return round(max(shares), 2) if shares else None


def _lora_tier(
    sidecar: Sidecar, lora: str | None, links: Mapping[str, tuple[Path, int, bool]]
) -> Tier | None:
    if lora is None:
        return None
    places = [driver.view.loras for driver in sidecar.drivers.values()]
    if any(lora in place.device for place in places):
        return Tier.DEVICE
    if any(lora in place.host for place in places) or (lora in links and links[lora][2]):
        return Tier.HOST
    return Tier.STORAGE if lora in links else None
