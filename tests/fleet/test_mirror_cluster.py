"""The mirror and the intents on a cluster of three servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from scalesim_daemon.intents import Intents
from scalesim_daemon.redis_client import open_client
from scalesim_daemon.settings import RunMode
from scalesim_daemon.store import Mirror
from tests.daemon.cluster_of_three import Cluster, cluster_of_three
from tests.daemon.live import until
from tests.daemon.mirror_scene import record

pytestmark = pytest.mark.fleet

SIMULATIONS = [f"s{number}" for number in range(12)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of_three(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def test_what_a_cluster_lost_is_written_again(cluster: Cluster) -> None:
    """Simulations lie on all three servers. One that comes back empty has its own again within a heartbeat."""

    async def body() -> None:
        state = {f"{simulation}/a": record(5.0) for simulation in SIMULATIONS}
        mirror = Mirror(cluster.url, cluster=True)
        task = asyncio.create_task(mirror.run(lambda: dict(state)))
        redis = open_client(cluster.url, cluster=True, retry=Retry(ConstantBackoff(0.02), 500))
        try:
            async with asyncio.timeout(30):
                for key, due in state.items():
                    mirror.mark(key, due)
                    mirror.clock(key.partition("/")[0], "step", 3.0, 1.0)
                mirror.decision({"reason": "once"})
                await mirror.drained()
                assert await redis.xlen("ss:decisions") == 1
                keys = [f"ss:{{{simulation}}}:due:step" for simulation in SIMULATIONS]
                assert [await redis.zscore(key, "a") for key in keys] == [5.0] * len(keys)
                cluster.kill(cluster.ports[1])
                cluster.back(cluster.ports[1])
                lost = [key for key in keys if redis.get_node_from_key(key).port == cluster.ports[1]]
                assert 0 < len(lost) < len(keys)

                async def restated() -> bool:
                    return [await redis.zscore(key, "a") for key in keys] == [5.0] * len(keys)

                await until(restated)
                mirror.close_stream("s0")
                await mirror.drained()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await redis.aclose()

    asyncio.run(body())


def test_intents_lie_in_a_cluster(cluster: Cluster) -> None:
    async def body() -> None:
        intents = Intents(cluster.url, cluster=True)
        until = time.time() + 100
        await intents.pin("s/a", until)
        await intents.set_mode(RunMode.PAUSED)
        assert await intents.pins() == {"s/a": until}
        assert await intents.mode() is RunMode.PAUSED
        assert await intents.eviction_warning() is None
        await intents.close()

    asyncio.run(body())
