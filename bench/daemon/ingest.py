"""From the feed to updated dues, against a bare loop that receives and decodes the same bytes.

The bare loop is the least that anything must do which hears of events in Python: a blocking `recv_multipart` at a
socket of the daemon's kind, and `msgspec.msgpack.decode` into maps and lists, which are then forgotten. Nothing is
checked, nothing kept, and nobody else is served meanwhile.

The daemon is a whole one (feed, gate, estimators, due board, cycles, broadcast, API) without Redis and engines; what
they add is shown beside. Each event gives an agent of 10,000 another due: checked, put in order after others of its
source, foreseen by every estimator, blended, noted for the score, and on the board. All of it waits in ZeroMQ's buffers
when either reader begins, so that no sender is waited for. Time is the CPU time of the thread that reads: what else
runs on the machine hits what is longer more often. It also hits whoever reads just then: of three times in turn the
least counts, for every reader. The daemon asks frames, and not the socket, whether another follows, which is quicker
than `recv_multipart`.

Also shown is what is left of the bare loop's rate where it makes checked events of the bytes (`wire.py`), and no more;
and where the estimators hear of these, and say and note for the score what they make of each agent: no gate, no keys,
no board, no cycles.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from bench.daemon.rig import Stopwatch, daemon, read_bare, reading
from bench.daemon.said import speaking
from scalesim_daemon.wire import read_plain
from scalesim_estimators import default_estimators

AGENTS = 10_000
EVENTS = {1: 20_000, 100: 100_000}
TRIES = 3
WITHIN = 120.0


def ingest(rounds: int, seed: int) -> Iterator[Mapping[str, float]]:
    """Yield of each round the shares that the daemon reaches of the bare loop's rate."""
    for number in range(rounds):
        found: dict[str, float] = {}
        for per_message in EVENTS:
            seconds = _least(_readers(per_message, seed + number))
            bare, share = seconds["bare"], f"ingest_{per_message}_fraction"
            found[share] = bare / seconds["alone"]
            found[f"{share}, with Valkey"] = bare / seconds["kept"]
            found[f"{share}, nothing but checked"] = bare / seconds["checked"]
            found[f"{share}, checked and estimated"] = bare / seconds["estimated"]
            each = 1e6 / EVENTS[per_message]
            found[f"bare loop, us per event, {per_message} a message"] = each * bare
            found[f"daemon, us per event, {per_message} a message"] = each * seconds["alone"]
        yield found


def _readers(per_message: int, seed: int) -> Mapping[str, Callable[[], float]]:
    return {
        "bare": partial(_bare, per_message, seed),
        "checked": partial(_bare, per_message, seed, read_plain),
        # Estimators that know nobody yet, each time.
        "estimated": lambda: _bare(per_message, seed, _estimating()),
        "alone": partial(take_flood_in, per_message, EVENTS[per_message], seed, {"enabled": False}),
        "kept": partial(take_flood_in, per_message, EVENTS[per_message], seed, {}),
    }


def _least(readers: Mapping[str, Callable[[], float]]) -> Mapping[str, float]:
    """Return the least time that each took, of some, in turn."""
    times = [{name: read() for name, read in readers.items()} for _ in range(TRIES)]
    return {name: min(one[name] for one in times) for name in readers}


def _bare(per_message: int, seed: int, read: Callable[[bytes], object] = msgspec.msgpack.decode) -> float:
    with tempfile.TemporaryDirectory(prefix="ingest-") as name:
        endpoint = f"ipc://{name}/feed"
        with speaking("flood", endpoint, AGENTS, EVENTS[per_message], per_message, seed):
            return read_bare(endpoint, 1 + EVENTS[per_message] // per_message, read)


def _estimating() -> Callable[[bytes], object]:
    blend = default_estimators()

    def read(payload: bytes) -> None:
        for kind, run in groupby(read_plain(payload) or (), type):
            blend.renew(list(blend.listen(kind, list(run), 0.0)), 0.0, -1.0)

    return read


def take_flood_in(per_message: int, events: int, seed: int, redis: Mapping[str, Any]) -> float:
    """Have a daemon take in so many events that wait for it; return the seconds that it took."""
    with tempfile.TemporaryDirectory(prefix="ingest-") as name:
        folder = Path(name)
        store = {"data_dir": str(folder / "valkey"), **redis}
        with speaking("flood", f"ipc://{folder}/flood", AGENTS, events, per_message, seed):
            return asyncio.run(time_daemon(folder, 1 + events // per_message, store))


async def time_daemon(folder: Path, messages: int, store: Mapping[str, Any]) -> float:
    """Return the seconds in which a daemon takes in so many messages that wait for it."""
    async with asyncio.timeout(WITHIN), daemon(folder, redis=store) as sidecar:
        watch = Stopwatch(sidecar, messages)
        async with reading(watch, f"ipc://{folder}/flood"):
            await watch.done.wait()
        assert len(sidecar.population.board) > 0
    return watch.seconds
