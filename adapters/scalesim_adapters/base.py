"""The contract between the daemon and one engine process: words, errors, and the members of an adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag, StrEnum, auto
from pathlib import Path
from typing import Any, ClassVar, Protocol

BlockHash = int | bytes


class Tier(StrEnum):
    """Where memory lies, nearest first. Engines' own words are translated at the edge."""

    DEVICE = "device"
    HOST = "host"
    STORAGE = "storage"
    REMOTE = "remote"


class MemoryKind(StrEnum):
    """The three kinds of memory that agents have inside an engine."""

    LORA = "lora"
    PREFIX_KV = "prefix_kv"
    MODEL = "model"


class Capability(Flag):
    """What an engine lets us do with one kind of memory; probed, never assumed. `PLACE`: to choose what goes for it."""

    NONE = 0
    LOAD = auto()
    EVICT = auto()
    DEMOTE = auto()
    PIN = auto()
    LIST = auto()
    EVENTS = auto()
    REPLAY = auto()
    HINT = auto()
    SLEEP = auto()
    PLACE = auto()


@dataclass(frozen=True, slots=True)
class PrefixItem:
    """The first tokens of an agent's prompts, or the part of them to act on.

    `token_ids` is a whole number of engine blocks. `model` is the served name that the agent's requests use (its
    LoRA's name where it has one). `agent` is the `session_id` that the agent's requests carry.

    Where the engine gives no tokens for it, `text` or `messages` are sent instead. `slot` is the place to bring it to,
    of an engine that lets us choose.
    """

    kind: ClassVar[MemoryKind] = MemoryKind.PREFIX_KV
    agent: str
    model: str
    token_ids: tuple[int, ...] = ()
    cache_salt: str | None = None
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    slot: int | None = None


@dataclass(frozen=True, slots=True)
class LoraItem:
    """A LoRA: `name` is the model name that requests use, `path` the stable link that the engine loads it from."""

    kind: ClassVar[MemoryKind] = MemoryKind.LORA
    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class ModelItem:
    """A whole model: the served `name`, and the folder of the weights to use where that is not what it is served
    with."""

    kind: ClassVar[MemoryKind] = MemoryKind.MODEL
    name: str
    path: Path | None = None


Item = PrefixItem | LoraItem | ModelItem


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call did: `tokens` asked for, `cached` of them found in the engine, and how long it took."""

    seconds: float
    tokens: int = 0
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Missing:
    """Something the engine could let us do, and the exact flag or variable that would switch it on."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a probe found. `incarnation` differs after every restart of the engine.

    Sizes are in blocks of `block_size` tokens; None where the engine doesn't tell. `device_blocks` counts what
    requests can use. `prompt_slots` counts places for whole prompts, of an engine that has those instead of blocks.
    `base_models` are the served names of the base model.
    """

    engine: str
    version: str
    incarnation: str
    base_models: tuple[str, ...]
    capabilities: Mapping[MemoryKind, Capability]
    max_model_len: int | None = None
    block_size: int | None = None
    device_blocks: int | None = None
    prompt_slots: int | None = None
    lora_slots: int | None = None
    lora_host_places: int | None = None
    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True, slots=True)
class LoraPlaces:
    """The LoRAs in slots on the device and in host memory, the next victim first; `held` ones stay for now. What has
    lost its name takes a place too, under a name that no LoRA has."""

    device: tuple[str, ...]
    host: tuple[str, ...]
    held: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the engine says is there: LoRA names it answers to, with the paths they were loaded from; and where it
    tells, in which places LoRAs are, whether its model is asleep, and of each slot for a prompt a number that changes
    with every request there, negative while it holds nothing. Who has which blocks is told by `events`."""

    loras: Mapping[str, str] = field(default_factory=dict)
    lora_places: LoraPlaces | None = None
    asleep: bool | None = None
    slot_requests: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class FirstTokens:
    """How many requests have had their first token since the engine's start, and the seconds that all of them waited
    for it."""

    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Pressure:
    """The engine's own counts of requests, ours included; `finished` counts since the engine's start, None where it
    doesn't tell, and so is `first_tokens`."""

    running: int
    waiting: int
    finished: int | None
    first_tokens: FirstTokens | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """Blocks became resident: a chain that continues `parent` (None at the root), `block_size` tokens each."""

    hashes: tuple[BlockHash, ...]
    parent: BlockHash | None
    token_ids: tuple[int, ...]
    block_size: int
    tier: Tier
    agent: str | None = None
    lora_name: str | None = None
    cache_salt: str | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """One copy of each of these blocks left `tier`."""

    hashes: tuple[BlockHash, ...]
    tier: Tier


@dataclass(frozen=True, slots=True)
class Cleared:
    """Nothing is resident any more: the engine restarted or dropped all of its cache."""


@dataclass(frozen=True, slots=True)
class FeedLost:
    """Events are missing and can't be replayed: what is resident is unknown until the next `Cleared`."""

    reason: str


ResidencyEvent = Stored | Removed | Cleared | FeedLost


class EngineError(Exception):
    """An engine call failed. `retryable` tells whether the same call may succeed later."""

    retryable: ClassVar[bool] = False


class EngineUnavailable(EngineError):
    """The engine can't be reached, or is starting or stopping."""

    retryable = True


class DeadlineExceeded(EngineError):
    """The engine didn't answer in time; whether the call had an effect is unknown."""

    retryable = True


class CapacityExceeded(EngineError):
    """The engine has no room, now."""

    retryable = True


class Rejected(EngineError):
    """The engine understood the call and refuses it."""


class Busy(Rejected):
    """The engine refuses it while requests run, or while they use what it is about."""

    retryable = True


class Revoked(EngineError):
    """Whoever sends this may act on the engine no longer: it was not sent."""


class NotFound(EngineError):
    """The engine doesn't know the model, LoRA or path."""


class Unsupported(EngineError):
    """This engine, as it is configured, can't do that."""


class ProtocolMismatch(EngineError):
    """The engine's answer is not of the form we know."""


class EngineAdapter(Protocol):
    """The code that drives one engine process. Every call is idempotent and raises only `EngineError`s.

    `deadline` is in seconds from the call. Cancelling a call closes its connection, which ends its work in the engine.
    """

    async def probe(self) -> EngineInfo:
        """Ask who the engine is and what it lets us do."""
        ...

    async def inventory(self) -> Inventory:
        """Ask what is there, as far as the engine tells."""
        ...

    async def pressure(self) -> Pressure | None:
        """Ask how busy the engine is; None where it tells nothing."""
        ...

    async def serving(self) -> int | None:
        """Ask how many requests the server has now, ours included: at once, while `pressure` may tell what was true
        before the engine's latest step. None where it doesn't tell."""
        ...

    async def load(self, item: Item, tier: Tier, *, deadline: float) -> Outcome:
        """Bring an item to a tier; loading what is there refreshes its recency."""
        ...

    async def evict(self, item: Item, to: Tier, *, deadline: float) -> Outcome:
        """Move an item away to a slower tier."""
        ...

    async def release(self, item: Item, *, deadline: float) -> Outcome:
        """Drop the engine's name for an item whose last owner is gone."""
        ...

    async def tokenize(
        self, model: str, *, text: str | None = None, messages: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[int, ...]:
        """Return the token ids of a prompt as the engine would make them, from exactly one of its two forms."""
        ...

    def events(self) -> AsyncIterator[ResidencyEvent]:
        """Yield what becomes resident and what leaves, in order; runs until cancelled and reconnects by itself."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
