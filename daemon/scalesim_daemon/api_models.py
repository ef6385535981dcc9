"""What the API answers. Infinite distances are null; times are wall seconds since the epoch."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from scalesim_adapters.base import MemoryKind, Tier
from scalesim_client.events import ClockKind
from scalesim_daemon.fleet.lease import Phase
from scalesim_daemon.plan import Action
from scalesim_daemon.settings import RunMode


def _null_where_infinite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Finite = Annotated[float | None, BeforeValidator(_null_where_infinite)]


class Residency(StrEnum):
    """What is known of where an item is; `LOADING` while a step of ours works on it."""

    ABSENT = "absent"
    LOADING = "loading"
    RESIDENT = "resident"
    UNKNOWN = "unknown"


class Answer(BaseModel):
    """Base of all answers: immutable, and readable from the daemon's own objects."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Problem(Answer):
    """Why a request was not answered as asked."""

    detail: str


class Health(Answer):
    """Whether the loop ticks; `tick_age` is how many seconds ago it last did."""

    alive: bool
    tick_age: float
    cycles: int
    mode: RunMode
    version: str


class Ready(Answer):
    """Whether the daemon can do its work; `reasons` says what is missing."""

    ready: bool
    reasons: list[str]


class RefusedEvent(Answer):
    """An event that was not taken: its type as sent (`?` where it has none) and why."""

    type: str
    reason: str


class Taken(Answer):
    """What became of a message: how many events were accepted, which were refused, and whether the source
    should send a complete snapshot because something of it is missing."""

    accepted: int
    refused: list[RefusedEvent]
    resync: bool


class Updated(Answer):
    """What was taken of a front end's update: its step, and of how many agents it told the distance."""

    step: int
    agents: int


class ClockState(Answer):
    """A stream's clock: its last announced value, and wall seconds per unit."""

    kind: ClockKind
    now: float
    pace: Finite


class PrefixBlocks(Answer):
    """An agent's prefix on one engine: its length, and how much of it, from its head, is on the device."""

    blocks: int
    resident_blocks: int


class AgentSummary(Answer):
    """One agent. `distance` is in `unit`s of its stream's clock, null where no invocation is foreseen;
    `seconds` is the same as wall seconds. It lives on `engine`, null where that isn't decided; `engines` has those
    where its prefix is known."""

    key: str
    distance: Finite
    unit: ClockKind | None
    seconds: Finite
    basis: str | None
    confidence: float | None
    in_flight: int
    items: list[str]
    engine: str | None
    engines: dict[str, PrefixBlocks]


class AgentsPage(Answer):
    """Agents by distance, nearest first."""

    total: int
    offset: int
    limit: int
    agents: list[AgentSummary]


class Placement(Answer):
    """Where an agent lives: `engine`, reached at `url`; null where that isn't decided, or isn't known."""

    agent: str
    engine: str | None
    url: str | None


class Place(Answer):
    """Where one memory item is on one engine, and in which tiers; `registered` tells of a LoRA whether the
    engine knows its name. `blocks` and `resident_blocks` are those of a prefix."""

    engine: str
    item: str
    kind: MemoryKind
    residency: Residency
    tiers: list[Tier]
    blocks: int | None = None
    resident_blocks: int | None = None
    registered: bool | None = None


class PlannedStep(Answer):
    """One step of a plan. `start` and `stop` are blocks of a prefix, 0 and 1 for a LoRA; `seconds` is how far
    the need is; `victims` are the agents or LoRAs that are expected to lose memory by it."""

    action: Action
    kind: MemoryKind
    key: str
    start: int
    stop: int
    seconds: Finite
    reason: str
    victims: list[str]


class Decision(Answer):
    """A step that was carried out, failed or was cancelled at wall time `at`, after `seconds`; the engine
    computed so many tokens for it."""

    at: float
    engine: str
    step: PlannedStep
    result: str
    seconds: float
    computed: int


class AgentDetail(AgentSummary):
    """One agent, and why it is treated as it is. `due` is a value of `clock`."""

    due: Finite
    clock: ClockState | None
    why: str
    invocations: int
    pinned_until: Finite
    places: list[Place]
    decisions: list[Decision]


class LedgerState(Answer):
    """What became of the prefetches, counted since the daemon's start."""

    prefetches: int
    prefetches_used: int
    prefetches_wasted: int
    prefetches_pending: int
    prefetched_tokens: int
    prefetched_tokens_wasted: int
    prefetched_tokens_pending: int
    touches: int
    cancelled: int
    failed: int


class BlockState(Answer):
    """Device blocks of `size` tokens; `free` ones hold nothing that could be reused. Null where unknown."""

    size: int | None
    capacity: int | None
    resident: int | None
    free: int | None


class LoraState(Answer):
    """LoRA names that the engine answers to, and those in its device and host places, next victim first: `exact`
    where the engine tells, else as its bookkeeping is thought to be."""

    registered: list[str]
    device: list[str]
    host: list[str]
    device_places: int | None
    host_places: int | None
    exact: bool


class HostTierState(Answer):
    """The file of an engine's host tier, and its bytes; null where it isn't there."""

    segment: str
    bytes: int | None


class PressureState(Answer):
    """The engine's own counts of requests, ours included; `finished` counts since its start, null where it doesn't
    tell."""

    running: int
    waiting: int
    finished: int | None


class MissingCapability(Answer):
    """What the engine could let us do, and the flag or variable that would switch it on."""

    what: str
    remedy: str


class LeaseState(Answer):
    """Who drives an engine, where several daemons could: `phase` is how this one stands to it, and `why_not` why it
    does nothing there, null where it `holds` the engine. `holder` took it at `since` and acts under `token`, as last
    heard; null where nobody is known to hold it."""

    phase: Phase
    holder: str | None
    token: int | None
    since: float | None
    why_not: str | None


class EngineState(Answer):
    """One engine as the daemon sees it. `lease` is null where it has the engine to itself. `asleep` is whether its
    model was put to sleep, `known` whether its blocks can be planned on. `lost_blocks` of agents' prefixes were
    evicted, `unpredicted` evictions took others than expected. `shared` is whether it has lately served requests that
    nobody announced. `model_bytes` is what its model takes on the device, null where that isn't set."""

    name: str
    lease: LeaseState | None
    reachable: bool
    unreachable_why: str | None
    known: bool
    unknown_why: str | None
    engine: str | None
    version: str | None
    incarnation: str | None
    base_models: list[str]
    max_model_len: int | None
    asleep: bool
    restarts: int
    blocks: BlockState
    loras: LoraState
    host_tier: HostTierState | None
    pressure: PressureState | None
    shared: bool
    model_bytes: int | None
    lost_blocks: int
    unpredicted: int
    capabilities: dict[MemoryKind, list[str]]
    missing: list[MissingCapability]
    ledger: LedgerState


class Budgets(Answer):
    """What all engines share, in bytes: host memory for copies of LoRAs and what of it is free, and device memory for
    whole models, null where that is not limited."""

    staging: int
    staging_free: int
    models: int | None


class Engines(Answer):
    """All engines, and the budgets that they share."""

    engines: list[EngineState]
    budgets: Budgets


class EnginePlanState(Answer):
    """The first steps of one engine's plan, how many there are, and what is being carried out now."""

    engine: str
    blocks: list[PlannedStep]
    blocks_total: int
    loras: list[PlannedStep]
    loras_total: int
    in_flight: list[PlannedStep]


class PlanState(Answer):
    """What is to be done, as of the last cycle; it is only done while `mode` is active. `models` are steps with whole
    models, which share one memory over all engines."""

    mode: RunMode
    engines: list[EnginePlanState]
    models: list[PlannedStep]


class Report(LedgerState):
    """The sum over all engines, and how well the estimates foretold who calls before whom: shares of the last
    `order_pairs` scored pairs in 0..1, recency's for comparison, null while none was scored."""

    order_accuracy: float | None
    order_pairs: int
    recency_accuracy: float | None


class SourceState(Answer):
    """One stream of events; `stale` while something of it is missing."""

    source: str
    simulation: str
    incarnation: int
    stale: bool
    clock: ClockState | None
    order_accuracy: float | None
    order_pairs: int


class Sources(Answer):
    """All streams, and what the gate counted since the daemon's start."""

    sources: list[SourceState]
    counts: dict[str, int]
    unknown_types: dict[str, int]


class Accuracy(Answer):
    """How good an estimator was over the last 256 invocations that concern it, null where there is nothing to go by.

    Of the `pairs` of invocations that it decided, `order_accuracy` were ordered right; without it
    `accuracy_without`, and by recency `recency_accuracy` would have been (all in 0..1). The blend decides all pairs.
    Of the last `invocations` it foresaw the share `coverage`, on average `lead_error` clock units early or late.
    `hit_rate` of them came in time: within a step, or a tenth of the time since the agent's last invocation. Its
    `confidence` is calibrated where it equals that; `brier` is the Brier score, 0 (best) to 1.
    """

    pairs: int
    order_accuracy: float | None
    accuracy_without: float | None
    recency_accuracy: float | None
    invocations: int
    coverage: float | None
    lead_error: Finite
    hit_rate: float | None
    confidence: float | None
    brier: float | None


class EstimatorState(Answer):
    """One estimator of one stream, or their blend: whether it is admitted, and how good it was."""

    source: str
    simulation: str
    clock: ClockKind
    estimator: str
    admitted: bool
    accuracy: Accuracy


class Estimators(Answer):
    """All estimators of all streams."""

    estimators: list[EstimatorState]
