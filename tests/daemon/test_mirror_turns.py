"""How long the mirror makes what it writes wait: turns of a busy event loop, and servers that fall silent."""

from __future__ import annotations

import asyncio

import pytest
import redis

from scalesim_daemon import store
from scalesim_daemon.store import Mirror
from tests.daemon.mirror_scene import OnServer, Scene, mirroring, record

SIMULATIONS, AGENTS = 18, 20
# Sent in the first turn; the answer is there in the next, and who waits for it goes on in the one after.
TURNS = 4


def test_what_many_simulations_said_is_written_within_a_few_turns_of_the_loop(on_server: OnServer) -> None:
    """Turns are long where much is taken in, so that each counts. Others make each last as long as the server takes."""

    async def body(scene: Scene) -> None:
        mirror, loop, turns = Mirror(scene.server.url), asyncio.get_running_loop(), 0
        # It answers in turn: when this is answered, so is what was written before.
        with redis.Redis.from_url(scene.server.url) as others:

            def turn() -> None:
                nonlocal turns, next_turn
                turns += 1
                others.ping()
                next_turn = loop.call_soon(turn)

            next_turn = loop.call_soon(turn)
            for now in (1.0, 2.0):
                for simulation in range(SIMULATIONS):
                    mirror.clock(f"s{simulation}", "step", now, 1.0)
                    for agent in range(AGENTS):
                        mirror.mark(f"s{simulation}/{agent}", record(now))
                mirror.decision({"now": now})
                turns = 0
                await mirror._flush()
                assert mirror.pending == 0
            # Of the second, when there was a connection.
            assert turns <= TURNS
            next_turn.cancel()
        assert await scene.dues("s7") == {str(agent): 2.0 for agent in range(AGENTS)}
        assert await scene.redis.hget("ss:{s7}:clock", "now") == "2.0"
        assert await scene.redis.xlen("ss:decisions") == 2
        await mirror._client.aclose()

    on_server(body)


class Relay:
    """A way to a server that carries no more answers of a connection once it is `cut`, without a word."""

    def __init__(self, server: Scene) -> None:
        self._to = server.redis.connection_pool.connection_kwargs
        self.connections = 0
        self.cut = False

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.cut = False
        number = self.connections
        if "path" in self._to:
            back, forth = await asyncio.open_unix_connection(self._to["path"])
        else:
            back, forth = await asyncio.open_connection(self._to["host"], self._to["port"])

        async def answers() -> None:
            while data := await back.read(1 << 16):
                if not self.cut and number == self.connections:
                    writer.write(data)

        answering = asyncio.create_task(answers())
        while data := await reader.read(1 << 16):
            forth.write(data)
        answering.cancel()
        for end in (forth, writer):
            end.close()


def test_a_connection_that_falls_silent_is_given_up(
    on_server: OnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ANSWER_SECONDS", 0.2)

    async def body(scene: Scene) -> None:
        relay = Relay(scene)
        server = await asyncio.start_server(relay.take, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        scene.server.url = f"redis://{host}:{port}/0"
        state = {"s/still": record()}
        async with server, mirroring(scene.server.url, state) as mirror:
            await mirror.drained()
            relay.cut = True
            mirror.mark("s/a", record(3.0))
            await mirror.drained()
            assert relay.connections == 2
            assert await scene.dues("s") == {"still": 7.0, "a": 3.0}

    on_server(body)
