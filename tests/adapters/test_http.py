"""HTTP calls to servers that close connections."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from scalesim_adapters.base import EngineUnavailable
from scalesim_adapters.http import Http

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
        with contextlib.suppress(asyncio.IncompleteReadError):
            for answer in (ANSWER, b""):
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                writer.write(answer)
        writer.close()
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


@pytest.mark.skip(
    reason="one call in 24 does, where it is cancelled just as its answer completes: see the roadmap"
)
def test_a_call_that_is_cancelled_at_any_moment_leaves_no_connection_in_use() -> None:
    """Also just when the answer is complete, and the connection is about to be given back."""
    served: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(ANSWER)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def scene() -> None:
        nonlocal served
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        http = Http(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "t", None, None)
        async with server, asyncio.timeout(20):
            for turns in (*range(60), *range(60)):
                call = asyncio.create_task(http.json("GET", "/", deadline=10))
                for _ in range(turns):
                    await asyncio.sleep(0)
                call.cancel()
                (result,) = await asyncio.gather(call, return_exceptions=True)
                assert result == {} or isinstance(result, asyncio.CancelledError)
            assert await http.json("GET", "/", deadline=10) == {}
            # What was cut off is closed by now or soon; what is idle is one and the same.
            while sum(not task.done() for task in served) > 1:
                await asyncio.wait(served, return_when=asyncio.FIRST_COMPLETED)
                served -= {task for task in served if task.done()}
            await http.close()
            await asyncio.gather(*served)

    asyncio.run(scene())
