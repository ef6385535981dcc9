"""What the planner sees, good until the next event, and what it says. Seconds are wall seconds until the invocation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scalesim_adapters.base import MemoryKind


class Action(StrEnum):
    """What one step does: `LOAD` brings memory nearer, `TOUCH` refreshes what is there, `DEMOTE` makes it the first to
    leave, `REGISTER` makes a LoRA's name known to the engine, `STAGE` and `UNSTAGE` move a LoRA's files into and out of
    host memory, `SLEEP` and `WAKE` move a whole model out of the device and back. `EVICT` makes
    memory leave the engine, on an operator's word alone."""

    LOAD = "load"
    TOUCH = "touch"
    DEMOTE = "demote"
    REGISTER = "register"
    STAGE = "stage"
    UNSTAGE = "unstage"
    SLEEP = "sleep"
    WAKE = "wake"
    EVICT = "evict"


@dataclass(frozen=True, slots=True)
class Step:
    """One action on one item. `start` and `stop` are the part of it to make resident: blocks of a prefix, 0 and 1 for
    a LoRA or a model. A model's `key` is its engine's name. `victims` are the agents or LoRAs that are expected to
    lose memory by it, `reason` is for people. `bytes` is the size of a LoRA or a model."""

    action: Action
    kind: MemoryKind
    key: str
    start: int
    stop: int
    seconds: float
    reason: str
    victims: tuple[str, ...] = ()
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Wish:
    """An agent with a known prefix: `blocks` long, the first `resident` of them on the device. `chance` is how likely
    it calls before those who are said to be farther, though they have called later."""

    agent: str
    seconds: float
    blocks: int
    resident: int
    held: bool = False
    chance: float = 1.0


@dataclass(frozen=True, slots=True)
class Lot:
    """Neighbours in the engine's eviction order: `blocks` that `agents` (nearest first, none for blocks
    nobody will ask for again) share. `seconds` is the nearest agent's distance."""

    blocks: int
    agents: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class BlockCache:
    """A snapshot of one engine's device blocks.

    `free` blocks are taken before any lot, then lots in the given order; blocks that a request uses are in
    neither. Each request of ours takes `overhead` further blocks, which are free when it has ended. `reserve`
    blocks will be taken by the next invocations, beyond their prefixes. A step loads `chunk` blocks at most.
    `capacity` is what requests can use in all. `demoted` agents are the first to lose blocks; None where the engine
    can't be told who that should be. Of `settling` agents, which have called just now, nothing may be foreseen yet.
    A block of a prefix takes `block_seconds` to load, and a second of that costs `price` seconds of others' work.
    """

    free: int
    lots: Sequence[Lot]
    wishes: Collection[Wish]
    chunk: int
    reserve: int = 0
    overhead: int = 1
    capacity: int = 0
    demoted: frozenset[str] | None = None
    settling: frozenset[str] = frozenset()
    block_seconds: float = 0.0
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class LoraWish:
    """A LoRA that agents use; `bytes` on disk, `staged` in host memory, `registered` under its name. It is `outdated`
    where the engine knows the name for what the LoRA was before it changed. It takes `stage_seconds` into host memory,
    and `load_seconds` into the engine. `chance`: as in `Wish`. Its files are as near as its nearest call at any of the
    engines that read them, in `files_seconds`; None where that is the same."""

    name: str
    seconds: float
    bytes: int
    staged: bool
    registered: bool
    held: bool = False
    outdated: bool = False
    stage_seconds: float = 0.0
    load_seconds: float = 0.0
    chance: float = 1.0
    files_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LoraCache:
    """A snapshot of one engine's LoRA places. `device` and `host` name the LoRAs there, next victim first.

    Sizes are in LoRAs, None where the engine doesn't tell: nothing is prefetched then. `staging_free` is in
    bytes. A second of loading costs `price` seconds of others' work.
    """

    device: tuple[str, ...]
    host: tuple[str, ...]
    device_places: int | None
    host_places: int | None
    wishes: tuple[LoraWish, ...]
    staging_free: int = 0
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelState:
    """The model of one engine process: the `bytes` it takes on the device while it is awake, the distance of the
    nearest of its agents, and whether requests for it run or wait (`held`).

    By the clock's pace that agent calls in `left` wall seconds, which pass between the clock's ticks too. The model
    takes `load_seconds` to wake and `sleep_seconds` to go to sleep. `chance`: as in `Wish`.
    """

    engine: str
    bytes: int
    awake: bool
    seconds: float
    held: bool = False
    left: float = 0.0
    load_seconds: float = 0.0
    sleep_seconds: float = 0.0
    chance: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelCache:
    """A snapshot of the models that share `budget` bytes of device memory."""

    models: tuple[ModelState, ...]
    budget: int
