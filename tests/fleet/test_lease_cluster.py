"""Leases on a cluster of three Valkeys: an engine's keys lie in one slot, whatever is asked of them."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ClusterError, RedisError

from scalesim_daemon.fleet.lease import Ask, Lease, Phase, Terms, Verb
from scalesim_daemon.fleet.lease_clock import now
from scalesim_daemon.fleet.lease_store import LeaseStore, key_of
from tests.daemon.live import until
from tests.daemon.stores import answering, server_binary

pytestmark = pytest.mark.fleet
NODES = 3
SLOTS = 16384
NODE_TIMEOUT_MS = 1000
WITHIN = 20.0


def free_ports() -> list[int]:
    """Ports whose buses, 10,000 above them, are free, too."""
    ports: list[int] = []
    while len(ports) < NODES:
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        if port < 55_000 and port not in ports:
            ports.append(port)
    return ports


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[dict[int, asyncio.subprocess.Process]]:
    """Run three masters that know each other; yields their processes by port."""
    ports, processes = free_ports(), dict[int, asyncio.subprocess.Process]()
    try:
        for port in ports:
            (folder / str(port)).mkdir()
            flags = {"cluster-enabled": "yes", "cluster-node-timeout": str(NODE_TIMEOUT_MS), "save": ""}
            flags |= {"port": str(port), "bind": "127.0.0.1", "dir": str(folder / str(port))}
            command = [part for name, value in flags.items() for part in (f"--{name}", value)]
            processes[port] = await asyncio.create_subprocess_exec(
                server_binary(), *command, stdout=asyncio.subprocess.DEVNULL
            )
            await answering(f"redis://127.0.0.1:{port}")
        nodes = [Redis(port=port, decode_responses=True) for port in ports]
        edges = [SLOTS * n // NODES for n in range(NODES + 1)]
        for n, node in enumerate(nodes):
            await node.execute_command("CLUSTER", "ADDSLOTSRANGE", edges[n], edges[n + 1] - 1)
            await node.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])

        async def whole() -> bool:
            told = [str(await node.execute_command("CLUSTER", "INFO")) for node in nodes]
            return all("cluster_state:ok" in one for one in told)

        await until(whole)
        for node in nodes:
            await node.aclose()
        yield processes
    finally:
        for process in processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()


def test_each_engine_has_its_lease_on_one_node(tmp_path: Path) -> None:
    async def scene() -> None:
        terms = Terms.of(5.0)
        async with (
            cluster(tmp_path) as nodes,
            RedisCluster(host="127.0.0.1", port=min(nodes), decode_responses=True) as client,
        ):
            one, two = LeaseStore(client, "a/1", terms), LeaseStore(client, "b/1", terms)
            owners = set()
            for engine in (f"vllm-10.0.0.{n}-8000" for n in range(12)):
                taken = await one.put(engine, Ask(Verb.TAKE, 0, 0.0))
                assert taken.holder == "a/1"
                assert (await two.put(engine, Ask(Verb.LOOK, taken.token, 0.0))).holder == "a/1"
                assert await one.decided(engine, taken.token, [{"key": "sim/rosa"}])
                assert (await one.put(engine, Ask(Verb.RENEW, taken.token, 0.0))).token == taken.token
                given = await one.put(engine, Ask(Verb.HAND_OVER, taken.token, 0.0))
                assert (given.holder, given.token > taken.token) == ("b/1", True)
                assert not await one.decided(engine, taken.token, [{"key": "late"}])
                owners.add(client.get_node_from_key(key_of(engine, "lease")).name)
            assert len(owners) == NODES, "engines are spread over the nodes"

    asyncio.run(scene())


# A client of a cluster that is given up while it looks for nodes leaves its connections to the garbage collector,
# which has to come by before this is forgotten.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_node_that_dies_takes_its_engines_leases_alone(tmp_path: Path) -> None:
    """A lease on it is over at its deadline, as without any Redis; leases elsewhere go on, if slots may be missing."""

    async def scene() -> None:
        terms = Terms.of(2.0)
        async with (
            cluster(tmp_path) as nodes,
            RedisCluster(host="127.0.0.1", port=min(nodes), decode_responses=True) as client,
        ):
            store = LeaseStore(client, "a/1", terms)
            for node in client.get_primaries():
                await client.execute_command(
                    "CONFIG SET", "cluster-require-full-coverage", "no", target_nodes=node
                )
            home = {f"e{n}": client.get_node_from_key(key_of(f"e{n}", "lease")).port for n in range(12)}
            dying, staying = next((one, two) for one in home for two in home if home[one] != home[two])
            leases = {engine: Lease("a/1", terms) for engine in (dying, staying)}

            async def keep(engine: str) -> None:
                lease = leases[engine]
                if (ask := lease.ask(now())) is not None:
                    try:
                        async with asyncio.timeout(terms.every):
                            lease.answered(ask, await store.put(engine, ask), now())
                    except (RedisError, ClusterError, OSError, TimeoutError) as error:
                        lease.failed(ask, repr(error), now())

            async def until_kept(dying_is: Phase) -> None:
                async with asyncio.timeout(WITHIN):
                    while [lease.phase(now()) for lease in leases.values()] != [dying_is, Phase.HOLDS]:
                        await asyncio.gather(*map(keep, leases))
                        await asyncio.sleep(0.02)

            await until_kept(Phase.HOLDS)
            nodes[home[dying]].kill()
            await until_kept(Phase.AWAY)
            assert leases[staying].lost == 0

    asyncio.run(scene())
    gc.collect()
