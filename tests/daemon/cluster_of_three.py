"""A real cluster of three servers without replicas, each with a third of the slots."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.daemon.stores import server_binary

SLOTS = 16384
WITHIN = 20.0


class Cluster:
    """Three servers that keep nothing when they are killed. Clients begin at `url`, the first of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports = _free_ports(3)
        self.url = f"redis://127.0.0.1:{self.ports[0]}"
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all servers and join them."""
        for port in self.ports:
            self._start(port)
        nodes = [Redis(port=port) for port in self.ports]
        for number, node in enumerate(nodes):
            node.execute_command(
                *("CLUSTER", "ADDSLOTSRANGE", SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1)
            )
            node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for port in self.ports[1:]:
            nodes[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        for node in nodes:
            _until(partial(_complete, node))
            node.close()

    def stop(self) -> None:
        """End all servers."""
        for port in list(self._processes):
            self.kill(port)

    def kill(self, port: int) -> None:
        """End one server, at once, with all that it holds."""
        process = self._processes.pop(port)
        process.kill()
        process.wait()

    def back(self, port: int) -> None:
        """Start a server again that was killed. It has its slots, and nothing in them."""
        self._start(port)

    def flush(self) -> None:
        """Empty all servers."""
        for port in self.ports:
            with Redis(port=port) as node:
                node.flushall()

    def _start(self, port: int) -> None:
        folder = self._folder / str(port)
        folder.mkdir(exist_ok=True)
        options = ("--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder)
        clustered = ("--cluster-enabled", "yes", "--cluster-node-timeout", 2000)
        self._processes[port] = subprocess.Popen(
            [server_binary(), *map(str, (*options, *clustered))], stdout=subprocess.DEVNULL
        )
        with Redis(port=port) as node:
            _until(partial(_answers, node))


@contextmanager
def cluster_of_three(folder: Path) -> Iterator[Cluster]:
    """Run a cluster whose servers keep their lists of nodes in a folder."""
    cluster = Cluster(folder)
    with ExitStack() as stack:
        stack.callback(cluster.stop)
        cluster.start()
        yield cluster


def _complete(node: Redis) -> bool:
    """Whether a server has heard of all slots."""
    ranges = node.execute_command("CLUSTER", "SLOTS")
    return len(ranges) == 3 and b"cluster_state:ok" in node.execute_command("CLUSTER", "INFO")


def _answers(node: Redis) -> bool:
    try:
        return bool(node.ping())
    except RedisError:
        return False


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not holds():
        assert time.monotonic() < deadline, "the cluster never came up"
        time.sleep(0.02)


def _free_ports(count: int) -> list[int]:
    """Return ports that are free, and whose bus ports (10,000 above) are."""
    found: list[int] = []
    while len(found) < count:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        if port < 55_000 and port not in found:
            found.append(port)
    return found
