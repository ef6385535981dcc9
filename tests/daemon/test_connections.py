"""What one client may hold of an HTTP server: who is slow, many, or odd holds nobody else up."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from scalesim_daemon.app import _doors
from scalesim_daemon.connections import FREE_PIECES, MOST_DISCARDED_BYTES, Places
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.settings import ApiSettings, RunMode, Settings
from tests.daemon.live import WITHIN, daemon

TOKEN = "0123456789abcdef"
HEAD = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\n"
TAGGED = b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"


def test_a_host_has_as_many_places_as_it_may_and_gives_them_back() -> None:
    places = Places(of_a_host=2, of_all=3)
    assert [places.take(host) for host in ("a", "a", "a", "b", "b", "c")] == [
        True,
        True,
        False,
        True,
        False,
        False,
    ]
    places.leave("a")
    assert places.take("c") and not places.take("a")
    for host in ("a", "b", "c"):
        places.leave(host)
    # Who is gone takes no memory, nor does who was refused.
    assert not places._taken


@asynccontextmanager
async def guarded(folder: Path) -> AsyncIterator[tuple[Sidecar, int]]:
    """Run a daemon that takes this host for another one; yields it and its port."""
    api = {"port": 0, "admin_token": TOKEN}
    async with daemon(folder, api=api, redis={"enabled": False}) as (sidecar, _):
        yield sidecar, int(sidecar.api_url.rpartition(":")[2])


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """Return what is answered until the other side closes or resets the connection."""
    heard = b""
    try:
        async with asyncio.timeout(WITHIN):
            while chunk := await reader.read(1 << 16):
                heard += chunk
    except ConnectionError:
        pass
    return heard


async def health(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    heard = await until_closed(reader)
    writer.close()
    return heard


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this host count as another one."""
    monkeypatch.setattr("scalesim_daemon.connections.is_loopback", lambda _: False)


NEVER_WHOLE = {
    "nothing": b"",
    "a line": b"GET /hea",
    "a header": HEAD + b"X-a: ",
    "a body": HEAD + TAGGED + b"Content-Length: 9\r\n\r\n[0",
    "a body that nobody waits for": HEAD + b"Content-Length: 9\r\n\r\n",
}


@pytest.mark.usefixtures("strangers")
def test_a_request_that_never_becomes_whole_ends_and_a_long_answer_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesim_daemon.connections.REQUEST_SECONDS", 0.2)

    async def begun(port: int, said: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        heard = await until_closed(reader)
        writer.close()
        return heard

    async def scene() -> None:
        async with guarded(tmp_path) as (sidecar, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n" + TAGGED + b"\r\n")
            async with asyncio.timeout(WITHIN):
                await reader.readuntil(b"event: snapshot")
                heard = await asyncio.gather(*(begun(port, said) for said in NEVER_WHOLE.values()))
                assert not [text for text in heard if b" 200 " in text]
                assert b" 401 " in heard[-1] and sidecar.counts["messages"] == 0
                for mode in (RunMode.PAUSED, RunMode.ACTIVE):
                    sidecar.mode = mode
                    await reader.readuntil(b"event: mode")
            writer.close()
            assert b" 200 " in await health(port)

    asyncio.run(scene())


@pytest.mark.usefixtures("strangers")
def test_a_host_holds_no_more_connections_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesim_daemon.app.Places", partial(Places, 3))

    async def scene() -> None:
        async with guarded(tmp_path) as (_, port):
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            # They are taken in turn.
            held[-1][1].write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await held[-1][0].readuntil(b"200")
            assert await health(port) == b""
            held[0][1].close()
            async with asyncio.timeout(WITHIN):
                while b" 200 " not in await health(port):
                    pass
            for _, writer in held:
                writer.close()

    asyncio.run(scene())


def test_who_asks_oddly_is_read_so_far_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This host's own connections aren't counted.
    monkeypatch.setattr("scalesim_daemon.app.Places", partial(Places, 0, 0))

    async def scene() -> None:
        async with guarded(tmp_path) as (sidecar, port):
            for token in (TAGGED, b""):
                pieces = b"1\r\n \r\n" * (FREE_PIECES + 1)
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(HEAD + token + b"Transfer-Encoding: chunked\r\n\r\n" + pieces)
                assert (await until_closed(reader)).startswith(b"HTTP/1.1 400")
                writer.close()
            # As many as that are fine.
            body = json.dumps({"type": "agent.woken", "agent": "a"}).encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = HEAD + TAGGED + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head + b"".join(b"1\r\n%c\r\n" % each for each in body) + b"0\r\n\r\n")
            assert b'"accepted":1' in await until_closed(reader)
            assert sidecar.counts["messages"] == 1
            writer.close()
            # And of what follows an answer some is taken, so that the answer is read.
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD + b"Content-Length: 1000000000\r\n\r\n")
            assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 401 Unauthorized\r\n"
            sent = 0
            with suppress(ConnectionError):
                async with asyncio.timeout(WITHIN):
                    while True:
                        writer.write(bytes(1 << 16))
                        await writer.drain()
                        sent += 1 << 16
            assert MOST_DISCARDED_BYTES < sent < 1_000_000_000
            writer.close()
            # What steers says little.
            for method, path in (("POST", "prefetch"), ("POST", "evict"), ("PUT", "pins/town/a")):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                head = (
                    f"{method} /v1/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n".encode()
                )
                writer.write(head + TAGGED + b"Content-Type: application/json\r\n\r\n" + b" " * 65537)
                assert b" 413 " in await reader.readuntil(b"\r\n")
                writer.close()

    asyncio.run(scene())


def test_who_goes_away_before_all_is_said_is_no_error_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with guarded(tmp_path) as (sidecar, port):
            for method, path in (
                ("POST", "events"),
                ("POST", "update"),
                ("POST", "evict"),
                ("PUT", "pins/town/a"),
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                head = f"{method} /v1/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n".encode()
                writer.write(
                    head + TAGGED + b"Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n"
                )
                # It is asked for what it has to say.
                assert b" 100 " in await reader.readuntil(b"\r\n")
                writer.close()
            assert sidecar.counts["messages"] == 0

    asyncio.run(scene())
    # The daemon has ended, and with it all that was under way.
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_no_answer_waits_for_an_acknowledgement() -> None:
    settings = Settings(api=ApiSettings(port=0))
    with _doors(AsyncExitStack(), settings)["api"] as door, socket.create_connection(door.getsockname()):
        accepted, _ = door.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
