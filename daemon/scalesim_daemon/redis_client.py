"""The one place where a client of Redis is made: of a single server, or of a Redis Cluster."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ReadOnlyError, RedisClusterException, RedisError

AWAY = (RedisError, RedisClusterException, OSError)
"""What a client raises while Redis doesn't take or give anything."""

_BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=2.0)
# The longest pause is reached before, and much higher powers of two are no floats.
_MOST_FAILURES = 16

OnConnect = Callable[[AbstractConnection], Awaitable[None]]


def open_client(
    url: str,
    *,
    cluster: bool = False,
    retry: Retry | None = None,
    connect_seconds: float = 2.0,
    answer_seconds: float | None = 5.0,
    on_connect: OnConnect | None = None,
    text: bool = True,
) -> Redis:
    """Return a client; it connects when it is asked something. Without `retry` what fails is told at once. `text` says
    whether answers are strings, else they are bytes. A single server's connections are shown to `on_connect`; a
    cluster's break off with an error.

    A client of a cluster has the same commands, so one type serves both.
    """
    options: dict[str, Any] = {
        "decode_responses": text,
        "encoding_errors": "replace",
        "retry": Retry(NoBackoff(), 0) if retry is None else retry,
        "socket_connect_timeout": connect_seconds,
        "socket_timeout": answer_seconds,
    }
    if cluster:
        return cast(Redis, RedisCluster.from_url(url, **options))
    pool = ConnectionPool.from_url(url, redis_connect_func=on_connect, **options)
    pool.connection_class = _leaving_replicas(pool.connection_class)
    return Redis.from_pool(pool)


def _leaving_replicas(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """Return connections that end where the server takes no writes: it was the primary, and where it was found another
    one is by now."""

    class Leaving(kind):  # type: ignore[misc, valid-type]  # a base class that is a value
        async def read_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return await super().read_response(*args, **kwargs)
            except ReadOnlyError:
                await self.disconnect(nowait=True)
                raise

    return Leaving


def pause(failures: int) -> float:
    """Return for how many seconds to leave Redis alone after so many failures in a row."""
    return _BACKOFF.compute(min(failures, _MOST_FAILURES))


def heed() -> None:
    """Raise `CancelledError` in a task that was told to end. A client of a cluster may swallow that while it mends its
    connections: who asks it again and again looks here in between."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def one_server(client: Redis | RedisCluster, url: str) -> Redis:
    """Return a client of one server, for what any of them says: of a cluster one that answers. Raises one of `AWAY`."""
    await look(client)
    if not isinstance(client, RedisCluster):
        return open_client(url, text=False)
    parts, node = urlsplit(url), random.choice(client.get_primaries())
    secret, at, _ = parts.netloc.rpartition("@")
    host = f"[{node.host}]" if ":" in node.host else node.host
    return open_client(parts._replace(netloc=f"{secret}{at}{host}:{node.port}").geturl(), text=False)


async def look(client: Redis | RedisCluster) -> None:
    """Ask every server for a sign of life, so that one that was restarted is noticed. Raises one of `AWAY`."""
    if isinstance(client, RedisCluster):
        await client.ping(target_nodes=RedisCluster.PRIMARIES)
    else:
        await client.ping()
