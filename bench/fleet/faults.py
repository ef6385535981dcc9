"""How each kind of fault begins and is healed: a context manager over the world."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.fleet.net import LATE, NARROW, Host
from bench.fleet.schedule import DAEMONS, Fault, Kind
from bench.fleet.world import World


async def strike(world: World, fault: Fault) -> None:
    """Let a fault happen when it is due, and heal it when it is over."""
    await asyncio.sleep(fault.at)
    async with _effect(world, fault):
        await asyncio.sleep(fault.seconds)


@asynccontextmanager
async def _effect(world: World, fault: Fault) -> AsyncIterator[None]:
    daemon = fault.daemon
    match fault.kind:
        case Kind.DAEMON_KILLED:
            with world.blow(daemon):
                world.kill(daemon)
                yield
                world.launch(daemon)
                await world.ready(daemon)
        case Kind.DAEMON_FROZEN:
            with world.blow(daemon):
                world.freeze(daemon, frozen=True)
                yield
                world.freeze(daemon, frozen=False)
        case Kind.STORE_LOST | Kind.STORE_MUTE | Kind.STORE_DEAF:
            ways = _ways(fault.kind, world.hosts[daemon], world.hosts["store"])
            with world.blow(daemon), world.network.lost(*ways):
                yield
        case Kind.ENGINE_LOST | Kind.ENGINE_MUTE | Kind.ENGINE_DEAF:
            ways = _ways(fault.kind, world.hosts[daemon], world.hosts[fault.engine])
            with world.blow(daemon, engine=fault.engine, leaves=False), world.network.lost(*ways):
                yield
        case Kind.HOST_UNPLUGGED:
            with world.blow(daemon), world.network.unplugged(world.hosts[daemon]):
                yield
        case Kind.HOST_SLOW | Kind.HOST_LATE:
            how = NARROW if fault.kind is Kind.HOST_SLOW else LATE
            with world.blow(daemon), world.network.shaped(world.hosts[daemon], *how):
                yield
        case Kind.REDIS_KILLED:
            with world.blow(*DAEMONS):
                world.store.kill()
                yield
                await world.store.start()
        case Kind.REDIS_FROZEN:
            with world.blow(*DAEMONS):
                world.store.signal(signal.SIGSTOP)
                yield
                world.store.signal(signal.SIGCONT)


def _ways(kind: Kind, daemon: Host, other: Host) -> list[tuple[Host, Host]]:
    """Return the ways that are lost, from whom to whom."""
    ways = {"mute": [(daemon, other)], "deaf": [(other, daemon)]}
    return ways.get(kind.partition("-")[2], [(daemon, other), (other, daemon)])
