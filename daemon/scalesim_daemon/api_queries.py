"""What can be asked of lists: which part, in which order. Every list is paged in the same way."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from scalesim_adapters.base import MemoryKind, Tier
from scalesim_daemon.api_models import Answer, Decision, Place, Residency
from scalesim_daemon.paging import LARGEST_NUMBER, LARGEST_PAGE
from scalesim_daemon.plan import Action


class Paged(BaseModel):
    """`limit` of what is asked for, from the `offset`th on."""

    model_config = ConfigDict(frozen=True)

    offset: Annotated[int, Field(ge=0, le=LARGEST_NUMBER)] = 0
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = 100


class AgentOrder(StrEnum):
    """By which agents are sorted, the smallest first; equals by key."""

    DISTANCE = "distance"
    KEY = "key"
    CONFIDENCE = "confidence"
    RESIDENT = "resident"


class AgentsQuery(Paged):
    """Which agents: of one simulation, with `text` in their key, known on one engine, with memory in a tier, pinned or
    not, with requests under way or without; those whose key comes `after` another: sorted by key, the last key of a
    page leads to the next one, and none is left out or told twice, whatever changes meanwhile."""

    simulation: str | None = None
    after: str | None = None
    text: str | None = None
    engine: str | None = None
    tier: Tier | None = None
    pinned: bool | None = None
    in_flight: bool | None = None
    sort: AgentOrder = AgentOrder.DISTANCE
    descending: bool = False


class ItemOrder(StrEnum):
    """By which items are sorted, the smallest first; equals by key and engine."""

    DISTANCE = "distance"
    KEY = "key"


class ItemsQuery(Paged):
    """Which items: of a kind, on an engine, with `text` in their key, in a tier, and so resident; those whose key comes
    `after` another: of one engine, sorted by key, the last key of a page leads to the next one."""

    after: str | None = None
    kind: MemoryKind | None = None
    engine: str | None = None
    text: str | None = None
    tier: Tier | None = None
    residency: Residency | None = None
    sort: ItemOrder = ItemOrder.DISTANCE
    descending: bool = False


class DecisionsQuery(Paged):
    """Which decisions: on an engine, with an action, on a kind of memory, about an agent or a LoRA (as what was moved,
    or as what was expected to give way), and with a `result` that starts so."""

    engine: str | None = None
    action: Action | None = None
    kind: MemoryKind | None = None
    key: str | None = None
    result: str | None = None


class Item(Place):
    """An item on one engine. So many `agents` use it; the nearest of them is `seconds` away, null where none is
    foreseen."""

    agents: int
    seconds: float | None


class ItemsPage(Answer):
    """Memory items, each on each engine that could have it."""

    total: int
    offset: int
    limit: int
    items: list[Item]


class DecisionsPage(Answer):
    """What was done, the latest first; the daemon keeps the last 2,000."""

    total: int
    offset: int
    limit: int
    decisions: list[Decision]
