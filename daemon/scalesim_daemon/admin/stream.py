"""What changes, as it changes: server-sent events for dashboards and `scalesimctl`, at most four times a second.

A client first hears a `snapshot` of everything, then changes alone: `mode`, `clocks`, `agents` and `decisions`. Dues
are values of their source's clock, so that a tick is one entry, whatever the number of agents: an agent's distance is
`due - now`, 0 at least. Whoever reads too slowly skips what came meanwhile, and hears a snapshot again. Looking at all
agents takes a tenth of the time at most; the more there are, the seldomer it is done.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from scalesim_adapters.base import Tier
from scalesim_daemon.api_models import ClockState, Decision
from scalesim_daemon.loop import Sidecar

LOOK_SECONDS = 0.25
LARGEST_SHARE = 0.1
HEARTBEAT_SECONDS = 15.0
HEARTBEAT = ": alive\n\n"
CHUNK = 250
MOST_CLIENTS = 32
MOST_WAITING = 32


class NotRunning(Exception):
    """Nothing changes here: the daemon's loop is not running, or stops."""


class TooManyClients(Exception):
    """As many clients listen as may."""


class Row(NamedTuple):
    """One agent. `due` is null where no invocation is foreseen. `tier` is the nearest in which anything of its memory
    lies, `resident` the share of its prefix that is on a device, null where none is known."""

    due: float | None
    source: str | None
    tier: Tier | None
    resident: float | None
    in_flight: int
    pinned: bool


class Client:
    """One listener, with what it has yet to be sent: bounded."""

    def __init__(self) -> None:
        self.behind = True
        self._waiting: asyncio.Queue[str | None] = asyncio.Queue(MOST_WAITING)

    def tell(self, messages: Iterable[str]) -> None:
        """Let the client have messages; where they don't fit it is behind, and hears none of those that wait."""
        for message in messages:
            if self._waiting.full():
                self.behind = True
                self._clear()
                return
            self._waiting.put_nowait(message)

    def end(self) -> None:
        """Tell the client nothing more."""
        self._clear()
        self._waiting.put_nowait(None)

    async def lines(self) -> AsyncIterator[str]:
        """Yield what the client is sent, and something now and then where there is nothing, so that a connection that
        is gone shows."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    message = await self._waiting.get()
            except TimeoutError:
                message = HEARTBEAT
            if message is None:
                return
            yield message

    def _clear(self) -> None:
        while not self._waiting.empty():
            self._waiting.get_nowait()


class Hub:
    """Looks at the sidecar while anybody listens, and tells all clients what has changed since the last look."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._clients: set[Client] = set()
        self._joined = asyncio.Event()
        self._closed = False
        self._mode = sidecar.mode
        self._tokens = sidecar.tokens
        self._clocks: dict[str, Any] = {}
        self._rows: dict[str, Row] = {}
        self._decided = 0

    async def run(self) -> None:
        """Look and tell until cancelled."""
        while True:
            await self._joined.wait()
            started = monotonic()
            await self.look()
            await asyncio.sleep(max(LOOK_SECONDS, (monotonic() - started) / LARGEST_SHARE))
            if not self._clients:
                self._joined.clear()

    def close(self) -> None:
        """End all streams, and take no more."""
        self._closed = True
        for client in self._clients:
            client.end()

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
        """Take in what there is now, and tell what has changed. Whatever waits for the event loop gets its turn between
        some hundred agents."""
        sidecar = self._sidecar
        if sidecar.tokens is not self._tokens:
            # Whoever listened with a token that is no more has to ask again.
            self._tokens = sidecar.tokens
            for client in self._clients:
                client.end()
            return
        rows: dict[str, Row] = {}
        for key, row in _rows(sidecar):
            rows[key] = row
            if not len(rows) % CHUNK:
                await asyncio.sleep(0)
        clocks = {
            source: ClockState.model_validate(clock).model_dump(mode="json")
            for source, (_, clock) in sidecar.population.clocks().items()
        }
        messages = list(self._changes(rows, clocks))
        self._mode, self._rows, self._clocks = sidecar.mode, rows, clocks
        snapshot = [self._snapshot()] if any(client.behind for client in self._clients) else []
        for client in list(self._clients):
            if client.behind:
                client.behind = False
                client.tell(snapshot)
            else:
                client.tell(messages)

    def _changes(self, rows: Mapping[str, Row], clocks: dict[str, Any]) -> Iterator[str]:
        sidecar = self._sidecar
        if sidecar.mode is not self._mode:
            yield _event("mode", {"mode": sidecar.mode})
        if clocks != self._clocks:
            yield _event("clocks", clocks)
        changed = [_agent(key, row) for key, row in rows.items() if self._rows.get(key) != row]
        gone = sorted(self._rows.keys() - rows.keys())
        if changed or gone:
            yield _event("agents", {"changed": changed, "gone": gone})
        new, self._decided = sidecar.counts["decisions"] - self._decided, sidecar.counts["decisions"]
        if new:
            latest = list(islice(reversed(sidecar.decisions), new))[::-1]
            yield _event(
                "decisions", [Decision.model_validate(one).model_dump(mode="json") for one in latest]
            )

    def _snapshot(self) -> str:
        agents = [_agent(key, row) for key, row in self._rows.items()]
        return _event("snapshot", {"mode": self._mode, "clocks": self._clocks, "agents": agents})


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


def _rows(sidecar: Sidecar) -> Iterator[tuple[str, Row]]:
    board, agents, pins = sidecar.population.board, sidecar.population.agents, sidecar.pinned()
    links = sidecar.library.inventory()[0]
    for key in agents.keys() | board.agents():
        agent, nearest = agents.get(key), board.nearest(key)
        due, source = None, None
        if nearest is not None and math.isfinite(nearest[1].distance):
            due, source = nearest[1].estimate.due, nearest[0]
        lora = agent.memory.lora_name if agent is not None and agent.memory is not None else None
        resident = _resident(sidecar, key)
        tier = Tier.DEVICE if resident else _lora_tier(sidecar, lora, links)
        in_flight = agent.in_flight if agent is not None else 0
        yield key, Row(due, source, tier, resident, in_flight, key in pins)


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


def _agent(key: str, row: Row) -> dict[str, Any]:
    return {"key": key, **row._asdict()}


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
