"""The KV event feed over real ZeroMQ: order, replay, loss and restarts, against a publisher that misbehaves
on demand."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
import zmq
import zmq.asyncio

from scalesim_adapters.base import (
    EngineUnavailable,
    FeedLost,
    ResidencyEvent,
    Stored,
    Unsupported,
)
from scalesim_adapters.kvevents import feed as kvfeed
from scalesim_adapters.kvevents.feed import KvFeed
from scalesim_adapters.kvevents.link import Link, LinkLost, Source, listens, opened_context, reachable_form

WITHIN = 10.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed waits as in life, but less long."""
    monkeypatch.setattr(kvfeed, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(kvfeed, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(kvfeed, "HOPELESS_SECONDS", 0.02)
    monkeypatch.setattr(kvfeed, "CONNECT_SECONDS", 1.0)


class Publisher:
    """Publishes like vLLM: a live stream, and a replay of the last `keep` batches. `run` closes what is open."""

    opened: ClassVar[list[Publisher]] = []

    def __init__(self, run: Path, keep: int = 100, first: int = 0) -> None:
        self._context = zmq.asyncio.Context()
        self._live = self._context.socket(zmq.XPUB)
        self._replay = self._context.socket(zmq.ROUTER)
        self._live.bind(f"ipc://{run}/kv")
        self._replay.bind(f"ipc://{run}/kv-replay")
        self._keep, self._next = keep, first
        self._buffer: list[tuple[int, bytes]] = []
        self._server = asyncio.create_task(self._serve())
        self.opened.append(self)

    async def publish(self, block: int | None, *, lost: bool = False) -> None:
        """Publish that a block was stored, or that nothing is; a `lost` batch is only replayed."""
        event = {"type": "AllBlocksCleared"} if block is None else stored_event(block)
        seq, payload = self._next, msgspec.msgpack.encode([0.0, [event], 0])
        self._next += 1
        self._buffer = [*self._buffer, (seq, payload)][-self._keep :]
        if not lost:
            await self._live.send_multipart([b"topic", seq.to_bytes(8, "big"), payload])

    async def subscribed(self) -> None:
        """Wait until a subscription has reached us."""
        await asyncio.wait_for(self._live.recv(), WITHIN)

    async def _serve(self) -> None:
        while True:
            client, _, first = await self._replay.recv_multipart()
            for seq, payload in self._buffer:
                if seq >= int.from_bytes(first, "big"):
                    await self._replay.send_multipart(
                        [client, b"", b"topic", seq.to_bytes(8, "big"), payload]
                    )
            await self._replay.send_multipart([client, b"", b"", b"\xff" * 8, b""])

    async def close(self) -> list[tuple[int, bytes]]:
        """End, and return what the replay buffer held."""
        self._server.cancel()
        await asyncio.gather(self._server, return_exceptions=True)
        self._context.destroy(linger=0)
        return self._buffer

    def remember(self, buffer: list[tuple[int, bytes]]) -> None:
        """Go on with the replay buffer and numbers of another."""
        self._buffer, self._next = buffer, buffer[-1][0] + 1


class Engine:
    """What `find` asks: where the feed is, or why there is none."""

    def __init__(self, run: Path, replay: bool = True) -> None:
        self._run, self._replay = run, replay
        self.incarnation = "1"
        self.error: Exception | None = None
        self._asked = asyncio.Condition()
        self._times = 0

    async def asked(self, times: int) -> None:
        """Wait until it was asked so many times in all."""
        async with self._asked:
            await asyncio.wait_for(self._asked.wait_for(lambda: self._times >= times), WITHIN)

    async def find(self) -> Source:
        async with self._asked:
            self._times += 1
            self._asked.notify_all()
        if self.error is not None:
            raise self.error
        replay = f"ipc://{self._run}/kv-replay" if self._replay else None
        return Source(f"ipc://{self._run}/kv", replay, self.incarnation)


class Heard:
    """What the feed has yielded: blocks as numbers, the rest by name."""

    def __init__(self) -> None:
        self.said: list[int | str] = []
        self.reasons: list[str] = []
        self._news = asyncio.Condition()

    async def listen(self, events: AsyncIterator[ResidencyEvent]) -> None:
        async for event in events:
            async with self._news:
                match event:
                    case Stored(hashes=(int(block),)):
                        self.said.append(block)
                    case FeedLost(reason):
                        self.said.append("lost")
                        self.reasons.append(reason)
                    case _:
                        self.said.append(type(event).__name__.lower())
                self._news.notify_all()

    async def until(self, *said: int | str) -> None:
        """Wait for as much as that to be said, and check that it is that."""
        async with self._news:
            await asyncio.wait_for(self._news.wait_for(lambda: len(self.said) >= len(said)), WITHIN)
        assert self.said == list(said)


def stored_event(block: int) -> dict[str, object]:
    return {
        "type": "BlockStored",
        "block_hashes": [block],
        "parent_block_hash": None,
        "token_ids": [block],
        "block_size": 1,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
    }


@asynccontextmanager
async def hearing(engine: Engine) -> AsyncIterator[Heard]:
    heard = Heard()
    task = asyncio.create_task(heard.listen(KvFeed(engine.find).events()))
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        try:
            await body()
        finally:
            for publisher in Publisher.opened:
                await publisher.close()
            Publisher.opened.clear()

    asyncio.run(main())


def test_a_late_listener_hears_the_history_and_then_the_present(tmp_path: Path) -> None:
    async def body() -> None:
        publisher = Publisher(tmp_path)
        for block in (1, 2, 3):
            await publisher.publish(block)
        async with hearing(Engine(tmp_path)) as heard:
            await heard.until("cleared", 1, 2, 3)
            await publisher.publish(4)
            await heard.until("cleared", 1, 2, 3, 4)

    run(body)


def test_an_engine_that_begins_by_saying_that_it_holds_nothing_says_what_is_known(tmp_path: Path) -> None:
    async def body() -> None:
        publisher = Publisher(tmp_path)
        for block in (None, 1, None):
            await publisher.publish(block)
        async with hearing(Engine(tmp_path)) as heard:
            await heard.until("cleared", 1, "cleared")
            for block in (None, 2):
                await publisher.publish(block)
            await heard.until("cleared", 1, "cleared", 2)

    run(body)


def test_after_a_loss_it_is_news_that_nothing_is_held(tmp_path: Path) -> None:
    async def body() -> None:
        publisher = Publisher(tmp_path)
        async with hearing(Engine(tmp_path, replay=False)) as heard:
            await publisher.subscribed()
            await heard.until("cleared", "lost")
            await publisher.publish(None)
            await heard.until("cleared", "lost", "cleared")

    run(body)


def test_lost_messages_are_replayed_in_order(tmp_path: Path) -> None:
    async def body() -> None:
        publisher = Publisher(tmp_path)
        async with hearing(Engine(tmp_path)) as heard:
            await publisher.publish(1)
            await heard.until("cleared", 1)
            await publisher.publish(2, lost=True)
            await publisher.publish(3, lost=True)
            await publisher.publish(4)
            await heard.until("cleared", 1, 2, 3, 4)

    run(body)


def test_a_message_lost_before_a_silence_is_replayed(tmp_path: Path) -> None:
    async def body() -> None:
        publisher = Publisher(tmp_path)
        async with hearing(Engine(tmp_path)) as heard:
            await publisher.publish(1)
            await publisher.publish(2, lost=True)
            await heard.until("cleared", 1, 2)

    run(body)


def test_what_cannot_be_replayed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvfeed, "QUIET_SECONDS", 60.0)

    async def body() -> None:
        publisher = Publisher(tmp_path, keep=2)
        await publisher.publish(1)
        async with hearing(Engine(tmp_path)) as heard:
            await publisher.subscribed()
            await heard.until("cleared", 1)
            for block in (2, 3, 4):
                await publisher.publish(block, lost=True)
            await publisher.publish(5)
            await heard.until("cleared", 1, "lost", 4, 5)
            await publisher.publish(6)
            await heard.until("cleared", 1, "lost", 4, 5, 6)

    run(body)


def test_a_history_without_its_beginning_is_told(tmp_path: Path) -> None:
    async def body() -> None:
        publisher = Publisher(tmp_path, keep=2)
        for block in (1, 2, 3):
            await publisher.publish(block)
        async with hearing(Engine(tmp_path)) as heard:
            await heard.until("cleared", "lost", 2, 3)

    run(body)


def test_a_restarted_engine_is_cleared_and_counts_anew(tmp_path: Path) -> None:
    async def body() -> None:
        engine, publisher = Engine(tmp_path), Publisher(tmp_path)
        async with hearing(engine) as heard:
            for block in (1, 2):
                await publisher.publish(block)
            await heard.until("cleared", 1, 2)
            engine.error = EngineUnavailable("starting")
            await publisher.close()
            engine.incarnation, publisher = "2", Publisher(tmp_path)
            await publisher.publish(7)
            engine.error = None
            await heard.until("cleared", 1, 2, "cleared", 7)
            await publisher.publish(8)
            await heard.until("cleared", 1, 2, "cleared", 7, 8)

    run(body)


def test_an_engine_that_restarts_between_question_and_connection_is_not_mistaken(tmp_path: Path) -> None:
    async def body() -> None:
        engine, publisher = Engine(tmp_path), Publisher(tmp_path)
        await publisher.publish(1)
        answers = iter(["1", "2", "2", "2"])

        async def find() -> Source:
            engine.incarnation = next(answers, "2")
            return await engine.find()

        heard = Heard()
        task = asyncio.create_task(heard.listen(KvFeed(find).events()))
        await heard.until("cleared", 1)
        assert engine.incarnation == "2"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(body)


def test_a_broken_connection_to_the_same_engine_loses_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        engine, publisher = Engine(tmp_path), Publisher(tmp_path)
        async with hearing(engine) as heard:
            await publisher.publish(1)
            await heard.until("cleared", 1)
            buffer = await publisher.close()
            publisher = Publisher(tmp_path)
            publisher.remember(buffer)
            await publisher.publish(2, lost=True)
            await heard.until("cleared", 1, 2)

    run(body)


def test_without_replay_the_past_is_unknown_and_the_present_is_heard(tmp_path: Path) -> None:
    async def body() -> None:
        publisher = Publisher(tmp_path)
        await publisher.publish(1)
        async with hearing(Engine(tmp_path, replay=False)) as heard:
            await heard.until("cleared", "lost")
            await publisher.subscribed()
            await publisher.publish(2)
            await heard.until("cleared", "lost", "lost", 2)

    run(body)


def test_an_engine_without_a_feed_says_so_once_and_may_come_back_with_one(tmp_path: Path) -> None:
    async def body() -> None:
        engine, publisher = Engine(tmp_path), Publisher(tmp_path)
        asked = asyncio.Event()
        calls = 0

        async def find() -> Source:
            nonlocal calls
            calls += 1
            if calls > 3:
                asked.set()
            return await engine.find()

        engine.error = Unsupported("--kv-events-config")
        heard = Heard()
        task = asyncio.create_task(heard.listen(KvFeed(find).events()))
        await asyncio.wait_for(asked.wait(), WITHIN)
        assert heard.said == ["lost"]
        assert heard.reasons == ["--kv-events-config"]
        engine.error = None
        await publisher.publish(1)
        await heard.until("lost", "cleared", 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(body)


def test_a_feed_that_nobody_serves_is_told(tmp_path: Path) -> None:
    async def body() -> None:
        async with hearing(Engine(tmp_path)) as heard:
            await heard.until("lost")
            assert f"{tmp_path}/kv" in heard.reasons[0]

    run(body)


@pytest.mark.parametrize(
    ("endpoint", "url", "reachable"),
    [
        ("tcp://*:5557", "http://10.0.0.7:8000", "tcp://10.0.0.7:5557"),
        ("tcp://0.0.0.0:5557", "http://engine:8000", "tcp://engine:5557"),
        ("tcp://[::]:5557", "http://[fe80::1]:8000", "tcp://[fe80::1]:5557"),
        ("tcp://10.1.1.1:5557", "http://10.0.0.7:8000", "tcp://10.1.1.1:5557"),
        ("ipc:///run/kv", "http://10.0.0.7:8000", "ipc:///run/kv"),
    ],
)
def test_a_wildcard_is_the_engines_host(endpoint: str, url: str, reachable: str) -> None:
    assert reachable_form(endpoint, url) == reachable


def test_listens(tmp_path: Path) -> None:
    async def body() -> None:
        assert not await listens(f"ipc://{tmp_path}/kv", within=1)
        publisher = Publisher(tmp_path)
        assert await listens(f"ipc://{tmp_path}/kv", within=1)
        await publisher.close()
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert await listens(f"tcp://127.0.0.1:{port}", within=1)
        server.close()
        await server.wait_closed()
        assert not await listens(f"tcp://127.0.0.1:{port}", within=1)
        assert not await listens("tcp://nowhere", within=1)

    run(body)


@contextmanager
def no_files() -> Iterator[None]:
    """Have no file opened any more, nor a socket."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened: list[int] = []
    highest = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (1 + highest, limits[1]))
    try:
        with suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in opened:
            os.close(file)


def test_where_no_socket_can_be_opened_the_feed_is_away_and_comes_back(tmp_path: Path) -> None:
    async def body() -> None:
        await Publisher(tmp_path).publish(1)
        engine = Engine(tmp_path)
        engine.error = EngineUnavailable("not yet")
        async with hearing(engine) as heard:
            await engine.asked(1)
            with no_files():
                engine.error = None
                await engine.asked(3)
            await heard.until("lost", "cleared", 1)

    run(body)


def test_where_nobody_can_be_asked_for_what_was_lost_the_link_is_lost(tmp_path: Path) -> None:
    async def body() -> None:
        await Publisher(tmp_path).publish(1)
        with opened_context() as context:
            async with Link(context, await Engine(tmp_path).find()) as link:
                with no_files(), pytest.raises(LinkLost, match="can't be asked: Too many open files"):
                    await anext(link.replay(0, within=1.0))

    run(body)
