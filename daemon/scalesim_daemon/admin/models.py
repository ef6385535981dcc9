"""What operators send and are answered. Times are wall seconds since the epoch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.admin.operations import State
from scalesim_daemon.api_models import Answer
from scalesim_daemon.plan import Action
from scalesim_daemon.settings import RunMode

LONGEST_LEASE_SECONDS = 30 * 24 * 3600.0
LONGEST_WAIT_SECONDS = 3600.0


class Word(BaseModel):
    """Base of what operators send: an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModeState(Answer):
    """The mode that holds now, and the one before; `not_kept` says why a restart may forget it, null where it
    doesn't."""

    mode: RunMode
    before: RunMode
    not_kept: str | None


class Lease(Word):
    """For how long a pin holds."""

    seconds: Annotated[float, Field(gt=0, le=LONGEST_LEASE_SECONDS, allow_inf_nan=False)] = 3600.0


class Pin(Answer):
    """A pinned agent: until `until` its memory counts as nearer than any."""

    key: str
    until: float


class PinState(Answer):
    """What became of a pin: `until` is null where there is none; `not_kept` as for a mode."""

    key: str
    until: float | None
    not_kept: str | None


class PinsPage(Answer):
    """The pins that hold, by key."""

    total: int
    offset: int
    limit: int
    pins: list[Pin]


class Order(Word):
    """An item: an agent's prefix by the agent's key, or a LoRA by its name. Without an `engine`, the one where it is,
    or where the agent's requests go. After `within` seconds it is given up."""

    kind: MemoryKind = MemoryKind.PREFIX_KV
    key: Annotated[str, Field(min_length=1, max_length=1024)]
    engine: str | None = None
    within: Annotated[float, Field(gt=0, le=LONGEST_WAIT_SECONDS, allow_inf_nan=False)] = 60.0


class OperationState(Answer):
    """What an operator asked for: an item to `load` or to `evict`. Past `until` it is given up; `detail` says what it
    waits for, or what came of it; `ended_at` is null while it may still come to something."""

    id: str
    action: Action
    kind: MemoryKind
    key: str
    engine: str
    asked_at: float
    until: float
    state: State
    detail: str
    ended_at: float | None


class OperationsPage(Answer):
    """Operations, the latest first."""

    total: int
    offset: int
    limit: int
    operations: list[OperationState]


class ConfigState(Answer):
    """The settings that hold, as in the file; secrets are starred out."""

    settings: dict[str, Any]


class Change(Answer):
    """A setting that was changed; secrets are starred out, so that both values may look the same."""

    key: str
    before: Any
    after: Any


class Reloaded(Answer):
    """What has changed since the daemon's start: what holds `now`, and what will `after_restart`."""

    now: list[Change]
    after_restart: list[Change]
