"""Daemons that share a Redis go on when one of them dies, when Redis loses all, and when they are parted."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from scalesim_client import Publisher
from scalesim_client.events import AgentReleased
from scalesim_daemon.loop import Sidecar
from tests.daemon.cluster_of_three import cluster_of_three
from tests.daemon.fleet_rig import Door, member, port_of, store
from tests.daemon.live import emulator, resident, until
from tests.daemon.stores import client
from tests.daemon.test_road import PREFIX, complete, tokens

pytestmark = pytest.mark.fleet


def say(publisher: Publisher, agents: range, step: float = 0.0) -> None:
    """Bind and foresee some agents, the last the nearest."""
    for agent in agents:
        publisher.bind(f"a{agent}", token_ids=tokens(agent % 30))
        publisher.activity(f"a{agent}", until=step + len(agents) - agent)
    publisher.step(step)


async def called(engine: str, publisher: Publisher, agent: int) -> int:
    """Call as a simulation does; return how many tokens were cached."""
    with publisher.invocation(f"a{agent}"):
        assert await asyncio.to_thread(publisher.flush, 5)
        return await complete(engine, f"village/a{agent}", [*tokens(agent), 1, 2])


def due(sidecar: Sidecar, agent: str) -> float | None:
    found = sidecar.population.board.get(agent)
    return None if found is None else found.estimate.due


def written(folder: Path, settings: dict[str, object]) -> Path:
    folder.mkdir()
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    return config


@asynccontextmanager
async def process(folder: Path, redis: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Run a daemon without engines as a process; yields it and its feed's port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "feed": {"bind": f"tcp://127.0.0.1:{port}"},
        "broadcast": {"bind": None},
        "api": {"port": 0},
        "redis": {"url": redis},
        "fleet": {"enabled": True, "name": "dying"},
        "loras": {"links_dir": str(folder / "links"), "staging_dir": str(folder / "staging")},
    }
    config = written(folder, settings)
    code = "import sys; from scalesim_daemon.cli import app; sys.exit(app())"
    one = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "serve", "--config", str(config)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield one, port
    finally:
        if one.returncode is None:
            one.kill()
        await one.wait()


def test_a_daemon_that_is_killed_leaves_its_simulation_to_another(tmp_path: Path) -> None:
    """kill -9 of the daemon that hears the simulation: that connects again, through the same address, to another."""

    async def scene() -> None:
        door = Door()
        with emulator(tmp_path, blocks=4 * 20 + 16) as engine:
            async with (
                store() as redis,
                process(tmp_path / "dying", redis.url) as (dying, port),
                member(tmp_path, "b", redis.url, engine.url) as (b, at_b),
            ):
                await door.open("127.0.0.1", port)
                with Publisher("village", address=f"tcp://127.0.0.1:{door.port}") as publisher:
                    say(publisher, range(8))

                    async def near(*agents: int) -> bool:
                        return all([await resident(at_b, f"village/a{agent}") == 20 for agent in agents])

                    await until(lambda: near(7, 6, 5))
                    assert not b.gate.streams()
                    os.kill(dying.pid, signal.SIGKILL)
                    await dying.wait()
                    await door.open("127.0.0.1", port_of(b.feed_address))

                    async def taken_over() -> bool:
                        streams = b.gate.streams()
                        return "village" in streams and not streams["village"][1]

                    await until(taken_over)
                    assert due(b, "village/a5") == 3.0
                    assert await near(7, 6, 5), "nothing was forgotten meanwhile"
                    assert await called(engine.url, publisher, 7) == PREFIX
                    publisher.step(1.0)
                    publisher.activity("a0", until=2.0)

                    async def goes_on() -> bool:
                        told = set(b.population.clocks()) == {"village"}
                        return told and due(b, "village/a0") == 2.0 and await near(0)

                    await until(goes_on)
                    async with client(redis.url) as look:
                        owner = await look.hget("ss:{village}:owners", "village")
                    assert b.shared is not None and str(owner).endswith(b.shared.me)
            await door.close()

    asyncio.run(scene())


def test_a_simulation_that_moves_is_known_once(tmp_path: Path) -> None:
    """From A to B and back, with both alive: whoever hears it last speaks for it, and the other is told."""

    async def scene() -> None:
        door = Door()
        async with (
            store() as redis,
            member(tmp_path, "a", redis.url) as (a, _),
            member(tmp_path, "b", redis.url) as (
                b,
                _,
            ),
        ):
            await door.open("127.0.0.1", port_of(a.feed_address))
            with Publisher("village", address=f"tcp://127.0.0.1:{door.port}") as publisher:
                say(publisher, range(4))

                async def known(here: Sidecar, there: Sidecar, due_of_a0: float) -> bool:
                    streams = here.gate.streams()
                    return (
                        "village" in streams
                        and not streams["village"][1]
                        and not there.gate.streams()
                        and set(here.population.clocks()) == {"village"}
                        and set(there.population.clocks()) == {"village of village, told"}
                        and due(here, "village/a0") == due(there, "village/a0") == due_of_a0
                    )

                await until(lambda: known(a, b, 4.0))
                await door.open("127.0.0.1", port_of(b.feed_address))
                publisher.activity("a0", until=11.0)
                await until(lambda: known(b, a, 11.0))
                await door.open("127.0.0.1", port_of(a.feed_address))
                publisher.activity("a0", until=12.0)
                await until(lambda: known(a, b, 12.0))
        await door.close()

    asyncio.run(scene())


def test_what_redis_lost_is_told_again_and_nobody_forgets_meanwhile(tmp_path: Path) -> None:
    async def scene() -> None:
        async with store() as redis, member(tmp_path, "a", redis.url) as (a, _), client(redis.url) as look:
            with emulator(tmp_path, blocks=96) as engine:
                async with member(tmp_path, "b", redis.url, engine.url) as (b, at_b):
                    with Publisher("village", address=a.feed_address) as publisher:
                        say(publisher, range(600))

                        async def known() -> bool:
                            return (
                                len(b.population.agents) == 600 and await resident(at_b, "village/a599") == 20
                            )

                        await until(known)
                        watch = b.population.watch()
                        b.population.take_changes()
                        watch.clear()
                        await look.flushall()
                        publisher.activity("a1", until=100.0)

                        async def restated() -> bool:
                            return (
                                await look.hlen("ss:{village}:told:village") == 600
                                and await look.hlen("ss:{village}:placed") == 600
                                and "village/a1" in watch
                            )

                        await until(restated)
                        assert due(b, "village/a1") == 100.0
                        assert watch == {"village/a1"}, "what is told again changes nothing"
                        await look.flushall()

                        async def unasked() -> bool:
                            return await look.hlen("ss:{village}:told:village") == 600

                        await until(unasked)

    asyncio.run(scene())


def test_parted_from_redis_a_daemon_goes_on_and_catches_up(tmp_path: Path) -> None:
    async def scene() -> None:
        door = Door()
        async with store() as redis:
            await door.open("127.0.0.1", port_of(redis.url.removesuffix("/0")))
            through = f"redis://127.0.0.1:{door.port}/0"
            with emulator(tmp_path, blocks=96) as engine:
                async with (
                    member(tmp_path, "a", redis.url) as (a, _),
                    member(tmp_path, "b", through, engine.url) as (b, at_b),
                ):
                    with Publisher("village", address=a.feed_address) as publisher:
                        say(publisher, range(8))

                        async def near() -> bool:
                            return await resident(at_b, "village/a7") == 20

                        await until(near)
                        door.shut()

                        async def parted() -> bool:
                            return b.shared is not None and not b.shared.connected

                        await until(parted)
                        for agent in range(8):
                            publisher.activity(f"a{agent}", until=50.0 + agent)
                        publisher.send(AgentReleased(agent="a3"))
                        publisher.step(2.0)
                        assert await called(engine.url, publisher, 7) == PREFIX
                        assert due(b, "village/a0") == 8.0, "what was known is known"
                        await door.open("127.0.0.1", port_of(redis.url.removesuffix("/0")))

                        async def caught_up() -> bool:
                            dues = [due(b, f"village/a{agent}") for agent in range(8)]
                            clock = b.population.clocks()["village of village, told"][1]
                            expected = [None if agent == 3 else 50.0 + agent for agent in range(7)]
                            return clock.now == 2.0 and dues[:7] == expected

                        await until(caught_up)
                        assert "village/a3" not in b.population.agents
            await door.close()

    asyncio.run(scene())


def test_what_a_dead_daemon_told_is_forgotten(tmp_path: Path) -> None:
    """Where its simulation doesn't come back."""

    async def scene() -> None:
        async with (
            store() as redis,
            client(redis.url) as look,
            process(tmp_path / "dying", redis.url) as (dying, port),
            member(tmp_path, "b", redis.url) as (b, _),
        ):
            with Publisher("village", address=f"tcp://127.0.0.1:{port}") as publisher:
                say(publisher, range(8))

                async def known() -> bool:
                    return len(b.population.agents) == 8

                await until(known)
                dying.kill()

                async def forgotten() -> bool:
                    return not b.population.agents and not b.population.clocks()

                await until(forgotten)
            async with member(tmp_path, "c", redis.url) as (c, _):
                await until(lambda: _loaded(c))
                assert not c.population.agents, "and it isn't known to who starts later"
                assert await look.hlen("ss:{village}:told:village") == 8

    asyncio.run(scene())


async def _loaded(sidecar: Sidecar) -> bool:
    return sidecar.shared is not None and sidecar.shared.knows("village")


def test_what_is_not_understood_harms_nobody(tmp_path: Path) -> None:
    """Another version, or whoever else can write to Redis, says what makes no sense."""

    async def scene() -> None:
        async with (
            store() as redis,
            client(redis.url) as look,
            member(tmp_path, "a", redis.url) as (a, _),
            member(tmp_path, "b", redis.url) as (b, _),
        ):
            with Publisher("village", address=a.feed_address) as publisher:
                say(publisher, range(3))

                async def known() -> bool:
                    return len(b.population.agents) == 3

                await until(known)
                odd = "ss:{odd}:"
                words = ({"s": "x", "o": "not an owner", "w": "?"}, {"p": "?"}, {"v": "?"}, {"what": "?"})
                for prefix in ("ss:{village}:", odd):
                    for fields in (*words, {"s": "x", "o": "1 1 1 nobody", "w": "\x91"}):
                        await look.xadd(prefix + "changes", fields)
                    await look.hset(
                        prefix + "owners", mapping={"x": "?", "y": "1 2 3 nobody", "z": "1 2 3 " + me(a)}
                    )
                    await look.hset(prefix + "heads", mapping={"x": "?", "y": "?", "z": "?"})
                    await look.hset(prefix + "told:z", mapping={"q": "?", "": "?"})
                    await look.hset(prefix + "placed", mapping={"q": "nowhere"})
                await look.hset("ss:engines", "odd", "?")
                await look.zadd("ss:simulations", {"odd": 9e12})
                for ring in (
                    "",
                    "what",
                    "changed",
                    "changed\nodd",
                    "changed\nvillage",
                    "wanted\n" + me(a) + "\nx",
                ):
                    await look.publish("ss:bell", ring)
                publisher.activity("a0", until=77.0)

                async def goes_on() -> bool:
                    loaded = b.shared is not None and b.shared.knows("odd")
                    return loaded and due(b, "village/a0") == 77.0 and len(b.population.agents) == 3

                await until(goes_on)

    asyncio.run(scene())


def me(sidecar: Sidecar) -> str:
    assert sidecar.shared is not None
    return sidecar.shared.me


def test_an_operators_word_at_one_daemon_holds_at_all(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            store() as redis,
            member(tmp_path, "a", redis.url) as (a, at_a),
            member(tmp_path, "b", redis.url) as (b, at_b),
            client(redis.url) as look,
        ):
            with Publisher("village", address=a.feed_address) as publisher:
                say(publisher, range(2))

                async def known() -> bool:
                    return "village/a1" in b.population.agents

                await until(known)
                assert (await at_a.post("/v1/pause")).status_code == 200
                await until(lambda: _holds(b, "paused", set()))
                assert (await at_b.put("/v1/pins/village/a1", json={"seconds": 60})).status_code < 300
                await until(lambda: _holds(a, "paused", {"village/a1"}))
                await look.flushall()

                async def told_again() -> bool:
                    kept = await look.hgetall("ss:intent")
                    return kept.keys() == {"kept", "mode", "pin:village/a1"} and kept["mode"] == "paused"

                await until(told_again)
                assert await _holds(a, "paused", {"village/a1"})
                assert await _holds(b, "paused", {"village/a1"})
                assert (await at_b.post("/v1/resume")).status_code == 200
                assert (await at_a.delete("/v1/pins/village/a1")).status_code < 300
                await until(lambda: _holds(a, "active", set()))
                await until(lambda: _holds(b, "active", set()))

    asyncio.run(scene())


async def _holds(sidecar: Sidecar, mode: str, pins: set[str]) -> bool:
    return sidecar.mode == mode and sidecar.pinned() == pins


def test_agents_of_a_dead_engine_live_on_another(tmp_path: Path) -> None:
    """Two daemons, each with an engine; the engine of one goes away."""

    async def scene() -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        with emulator(tmp_path / "one", blocks=400) as one, emulator(tmp_path / "two", blocks=400) as two:
            first = [{"kind": "vllm", "url": one.url, "name": "one"}]
            second = [{"kind": "vllm", "url": two.url, "name": "two"}]
            async with (
                store() as redis,
                member(tmp_path, "a", redis.url, engines=first) as (a, at_a),
                member(tmp_path, "b", redis.url, engines=second) as (b, at_b),
                client(redis.url) as look,
            ):

                async def both_known() -> bool:
                    return [host.alive for host in a.homes.placement.hosts.values()] == [True, True]

                await until(both_known)
                for sidecar in (a, b):
                    sidecar.homes.placement.gone_seconds = 1.0
                with Publisher("village", address=a.feed_address) as publisher:
                    say(publisher, range(10))

                    async def spread() -> bool:
                        placed = await look.hgetall("ss:{village}:placed")
                        shares = [list(placed.values()).count(name) for name in ("one", "two")]
                        brought = [
                            await resident(at_a if engine == "one" else at_b, f"village/{agent}") == 20
                            for agent, engine in placed.items()
                        ]
                        same = a.homes.placement.homes == b.homes.placement.homes
                        return shares == [5, 5] and all(brought) and same

                    await until(spread)
                    two.stop()

                    async def moved() -> bool:
                        placed = await look.hgetall("ss:{village}:placed")
                        here = [await resident(at_a, f"village/a{agent}") == 20 for agent in range(10)]
                        return set(placed.values()) == {"one"} and all(here)

                    await until(moved)

    asyncio.run(scene())


def test_daemons_share_a_cluster_of_three(tmp_path: Path) -> None:
    """Twelve simulations on three servers, of which one loses all."""

    async def scene() -> None:
        with cluster_of_three(tmp_path) as cluster, emulator(tmp_path, blocks=600) as engine:
            async with (
                member(tmp_path, "a", cluster.url, cluster=True) as (a, _),
                member(tmp_path, "b", cluster.url, engine.url, cluster=True) as (b, at_b),
            ):
                publishers = [Publisher(f"s{number}", address=a.feed_address) for number in range(12)]
                try:
                    for publisher in publishers:
                        say(publisher, range(2))

                    async def known(due_of_a0: float) -> bool:
                        dues = {due(b, f"s{number}/a0") for number in range(12)}
                        return dues == {due_of_a0} and await resident(at_b, "s3/a1") == 20

                    await until(lambda: known(2.0))
                    cluster.kill(cluster.ports[2])
                    cluster.back(cluster.ports[2])
                    for publisher in publishers:
                        publisher.activity("a0", until=20.0)
                    await until(lambda: known(20.0))
                finally:
                    for publisher in publishers:
                        publisher.close()

    asyncio.run(scene())
