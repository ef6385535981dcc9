"""What differs between the engines that variants are played on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.engine.variants import Place
from bench.rig.process import EngineServer


@dataclass(frozen=True, slots=True)
class Site:
    """Where one engine is started: `folder` is its own and `model` the rig's, the device has room for `pool_tokens` and
    a host tier, where the place has one, for `tier_tokens`; dues will be broadcast at `dues`."""

    place: Place
    folder: Path
    model: str
    pool_tokens: int
    tier_tokens: int
    dues: str


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine of which every place can be started: `name` is its kind in the daemon's settings, `title` and `flags`
    are what the result says of it.

    `launched` starts one without waiting until it is ready, and ends it. `emptied` drops all that the engine behind a
    client has cached, on the device and below it, and tells whether it did: it doesn't while something is in use.
    """

    name: str
    title: str
    flags: str
    launched: Callable[[Site], AbstractContextManager[EngineServer]]
    emptied: Callable[[httpx.AsyncClient], Awaitable[bool]]
