"""HTTP calls to servers that close connections."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket

import httpx
import pytest

from scalesim_adapters.base import EngineUnavailable
from scalesim_adapters.http import Http, fence

SENT = 1 << 20
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Fickle:
    """A server that answers the first request of each connection, and closes the connection at the second."""

    def __init__(self) -> None:
        self.requests = 0
        self.connections: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.append(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            for answer in (ANSWER, b""):
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                writer.write(answer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask_twice(method: str) -> int:
    """Return how many requests reached the server."""
    fickle = Fickle()
    server = await asyncio.start_server(fickle.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    http = Http(f"http://{host}:{port}", "engine-0", None, None)
    try:
        for _ in range(2):
            await http.json(method, "/health", deadline=5)
        return fickle.requests
    finally:
        await http.close()
        await asyncio.gather(*fickle.connections)
        server.close()


def test_a_question_on_a_connection_that_was_just_closed_is_asked_again() -> None:
    assert asyncio.run(ask_twice("GET")) == 3


def test_a_command_is_not_given_twice() -> None:
    with pytest.raises(EngineUnavailable, match="/health: Server disconnected"):
        asyncio.run(ask_twice("POST"))


@pytest.mark.parametrize(
    "answer", [(ANSWER,), (ANSWER[:40], ANSWER[40:-1], ANSWER[-1:])], ids=["whole", "parts"]
)
@pytest.mark.parametrize("cancels", [1, 2])
def test_a_call_that_is_cancelled_at_any_moment_leaves_no_connection_in_use(
    cancels: int, answer: tuple[bytes, ...]
) -> None:
    """Also just when the answer is complete, and the connection is about to be given back; and who cancels a call again
    doesn't interrupt that either."""
    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                for part in answer:
                    writer.write(part)
                    await turns(2)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def scene() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        http = Http(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "t", None, None)
        rng = random.Random(cancels)
        results = []
        async with server, asyncio.timeout(20):
            for _ in range(200):
                call = asyncio.create_task(http.json("GET", "/", deadline=10))
                await turns(rng.randrange(70))
                for _ in range(cancels):
                    call.cancel()
                    await turns(rng.randrange(3))
                results += await asyncio.gather(call, return_exceptions=True)
            assert all(result == {} or isinstance(result, asyncio.CancelledError) for result in results)
            assert 20 < results.count({}) < 180
            assert await http.json("GET", "/", deadline=10) == {}
            async with asyncio.timeout(5):
                # What was cut off is closed by now or soon; what is idle is one and the same.
                while len(open_ones := [task for task in served if not task.done()]) > 1:
                    await asyncio.wait(open_ones, return_when=asyncio.FIRST_COMPLETED)
            await http.close()
            await asyncio.gather(*served)

    asyncio.run(scene())


def test_a_cancelled_call_has_closed_its_connection() -> None:
    """By that engines learn that nobody waits any more, and stop computing."""

    async def scene() -> None:
        asked, left = asyncio.Event(), asyncio.Event()

        async def think(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            assert await reader.readexactly(2) == b"{}"
            with pytest.raises(ConnectionResetError):
                await reader.read()
            left.set()
            writer.close()

        async with await asyncio.start_server(think, "127.0.0.1", 0) as server, asyncio.timeout(5):
            http = Http(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "t", None, None)
            call = asyncio.create_task(http.json("POST", "/v1/completions", {}, deadline=60))
            await asked.wait()
            call.cancel("enough")
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await call
            await left.wait()
            await http.close()

    asyncio.run(scene())


async def turns(count: int) -> None:
    """Let everybody else have so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_what_is_sent_under_a_lease_carries_its_token() -> None:
    async def ids() -> list[str]:
        sent: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            sent.append(request.headers["x-request-id"])
            return httpx.Response(200, json={})

        http = Http("http://engine", "host-a-one", None, httpx.MockTransport(answer))
        await http.json("GET", "/health", deadline=5)
        fence.set(17)
        await http.json("POST", "/v1/completions", {}, deadline=5)
        await http.close()
        return sent

    free, under = asyncio.run(ids())
    assert re.fullmatch(r"scalesim-host-a-one-[0-9a-f]{16}", free)
    assert re.fullmatch(r"scalesim-host-a-one-t17-[0-9a-f]{16}", under)


def test_what_a_server_has_not_taken_when_a_call_is_cancelled_never_comes() -> None:
    """The server's window is full, as if the network took no more."""

    async def scene() -> int:
        loop, came = asyncio.get_running_loop(), 0
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            listening.setblocking(False)
            http = Http(f"http://127.0.0.1:{listening.getsockname()[1]}", "one", None, None)
            call = asyncio.create_task(
                http.send("POST", "/v1/completions", {"prompt": "x" * SENT}, deadline=5)
            )
            taken, _ = await loop.sock_accept(listening)
            with taken:
                await loop.sock_recv(taken, 1)
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                await http.close()
                with pytest.raises(ConnectionResetError):
                    while part := await loop.sock_recv(taken, 1 << 16):
                        came += len(part)
        return came

    assert asyncio.run(scene()) < SENT
