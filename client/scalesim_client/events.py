"""What a simulation says: one frozen class per event type of the public contract.

On the wire an event is a map whose `type` is the class's `type` and whose other keys are its fields. A field
that is `None` is left out. Construction checks ranges and raises `ValueError`, so an event object is always valid.
Times, distances and durations are in units of the stream's clock; speeds are space units per clock unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, ClassVar, Literal, get_args

SCHEMA_VERSION = "1.0"
MAX_ID_BYTES = 256
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_EVENTS_PER_MESSAGE = 1000
MAX_SNAPSHOT_PARTS = 10_000
MAX_NESTING = 32

ClockKind = Literal["step", "sim_seconds", "wall_seconds"]
CLOCK_KINDS: tuple[str, ...] = get_args(ClockKind)


def check_id(name: str, value: str) -> None:
    """Raise `ValueError` unless `value` is 1 to 256 bytes of UTF-8 (JSON can spell strings that have no such form)."""
    size = len(value) if value.isascii() else len(value.encode())
    if not 0 < size <= MAX_ID_BYTES:
        raise ValueError(f"{name} must be 1 to {MAX_ID_BYTES} UTF-8 bytes long")


def check_amount(name: str, value: float | None) -> None:
    """Raise `ValueError` for a time, duration or speed that is negative, infinite or not a number."""
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and not negative, got {value}")


def check_nesting(name: str, value: Any, levels: int = MAX_NESTING) -> None:
    """Raise `ValueError` for maps and arrays that stand in each other more than 32 levels deep."""
    if isinstance(value, dict | list | tuple):
        if not levels:
            raise ValueError(f"{name} is nested more than {MAX_NESTING} levels deep")
        for inner in value.values() if isinstance(value, dict) else value:
            check_nesting(name, inner, levels - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events; `type` is the name on the wire."""

    type: ClassVar[str]

    def to_wire(self) -> dict[str, Any]:
        """Return the map that goes on the wire; `for_` becomes `for`."""
        wire: dict[str, Any] = {"type": self.type}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                wire[field.name.rstrip("_")] = value
        return wire

    def check_together(self) -> None:
        """Raise `ValueError` for fields of which each is valid and that don't go together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEvent(Event):
    """Base of the events that concern one agent; `agent` is unique within its simulation."""

    agent: str

    def __post_init__(self) -> None:
        check_id("agent", self.agent)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOpened(Event):
    """First event of a stream. A greater `incarnation` of the same source replaces all that it said before."""

    type: ClassVar[str] = "stream.opened"
    simulation: str
    source: str
    incarnation: int
    clock: ClockKind
    schema_version: str = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_id("simulation", self.simulation)
        check_id("source", self.source)
        if "/" in self.simulation:
            raise ValueError("simulation must not contain '/': agents are addressed as simulation/agent")
        if self.clock not in CLOCK_KINDS:
            raise ValueError(f"clock must be one of {', '.join(CLOCK_KINDS)}, got {self.clock!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamClosed(Event):
    """The source ends; its agents become far."""

    type: ClassVar[str] = "stream.closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSnapshot(Event):
    """Part `part` (from 0) of `of`: together the parts replace all that the source said. `now` is its clock.

    `events` are maps as on the wire, in the order in which they were said. One that carries a `now` of its
    own was said at that clock value, one without holds as of the snapshot's.
    """

    type: ClassVar[str] = "state.snapshot"
    part: int
    of: int
    events: list[dict[str, Any]]
    now: float | None = None

    def __post_init__(self) -> None:
        check_amount("now", self.now)
        if not 0 <= self.part < self.of <= MAX_SNAPSHOT_PARTS:
            raise ValueError(
                f"part must be in 0..of-1 and of at most {MAX_SNAPSHOT_PARTS}, got {self.part} of {self.of}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAdvanced(Event):
    """The stream's clock now shows `now`."""

    type: ClassVar[str] = "step.advanced"
    now: float

    def __post_init__(self) -> None:
        check_amount("now", self.now)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRegistered(AgentEvent):
    """An agent exists."""

    type: ClassVar[str] = "agent.registered"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReleased(AgentEvent):
    """An agent is gone for good: its memory may be dropped."""

    type: ClassVar[str] = "agent.released"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityStarted(AgentEvent):
    """An agent acts without the LLM `for_` clock units from now, or `until` a clock value (exactly one of them)."""

    type: ClassVar[str] = "agent.activity_started"
    for_: float | None = None
    until: float | None = None
    activity: str | None = None

    def __post_init__(self) -> None:
        check_id("agent", self.agent)
        check_amount("for", self.for_)
        check_amount("until", self.until)
        self.check_together()

    def check_together(self) -> None:
        """Raise `ValueError` unless there is exactly one of `for` and `until`."""
        if (self.for_ is None) == (self.until is None):
            raise ValueError("give exactly one of 'for' and 'until'")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentMoved(AgentEvent):
    """Where an agent is and where it goes: `xy` and `destination` in space units, `place` a name,
    `vision` the radius at which it meets others."""

    type: ClassVar[str] = "agent.moved"
    xy: tuple[float, float] | None = None
    place: str | None = None
    destination: tuple[float, float] | None = None
    speed: float | None = None
    vision: float | None = None

    def __post_init__(self) -> None:
        check_id("agent", self.agent)
        check_amount("speed", self.speed)
        check_amount("vision", self.vision)
        for name, point in (("xy", self.xy), ("destination", self.destination)):
            if point is not None and not all(math.isfinite(c) for c in point):
                raise ValueError(f"{name} must be finite, got {point}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentWoken(AgentEvent):
    """Something outside the plan makes the agent call now: distance 0, urgent."""

    type: ClassVar[str] = "agent.woken"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdled(AgentEvent):
    """No invocation of the agent is foreseen: distance infinity."""

    type: ClassVar[str] = "agent.idled"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathDeclared(Event):
    """Activation spreads along `edges` (from, to) or the chain `nodes` (exactly one of them);
    one hop takes `hop` clock units. A path of the same name replaces the earlier one."""

    type: ClassVar[str] = "path.declared"
    path: str = "default"
    edges: list[tuple[str, str]] | None = None
    nodes: list[str] | None = None
    hop: float = 1.0

    def __post_init__(self) -> None:
        check_id("path", self.path)
        check_amount("hop", self.hop)
        self.check_together()
        for node in (*(self.nodes or ()), *chain.from_iterable(self.edges or ())):
            check_id("nodes", node)

    def check_together(self) -> None:
        """Raise `ValueError` unless there is exactly one of `edges` and `nodes`."""
        if (self.edges is None) == (self.nodes is None):
            raise ValueError("give exactly one of 'edges' and 'nodes'")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentActivated(AgentEvent):
    """The active frontier of `path` has reached the agent now. In a snapshot, `served` says that the agent has been
    invoked since."""

    type: ClassVar[str] = "agent.activated"
    path: str = "default"
    served: bool | None = None

    def __post_init__(self) -> None:
        check_id("agent", self.agent)
        check_id("path", self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDeclared(Event):
    """Who calls next, declared: `agents` in order; all at clock value `at`, or one per clock unit from now where `at`
    is left out; or each with a probability per clock unit (`probabilities`, one per agent, 0 to 1, never beside `at`).
    `not_before` is a clock value before which none calls. A plan replaces the source's earlier plan."""

    type: ClassVar[str] = "plan.declared"
    agents: list[str]
    at: float | None = None
    probabilities: list[float] | None = None
    not_before: float | None = None

    def __post_init__(self) -> None:
        check_amount("at", self.at)
        check_amount("not_before", self.not_before)
        for agent in self.agents:
            check_id("agents", agent)
        self.check_together()

    def check_together(self) -> None:
        """Raise `ValueError` for probabilities beside `at`, not one per agent, or beyond 0..1."""
        if self.probabilities is not None:
            if self.at is not None:
                raise ValueError("give at most one of 'at' and 'probabilities'")
            if len(self.probabilities) != len(self.agents):
                raise ValueError("'probabilities' needs one value per agent")
            if not all(0 <= p <= 1 for p in self.probabilities):
                raise ValueError("'probabilities' must lie in 0..1")


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationStarted(AgentEvent):
    """The agent's LLM request is being sent."""

    type: ClassVar[str] = "invocation.started"
    request: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationFinished(AgentEvent):
    """The agent's LLM request has been answered, or has failed."""

    type: ClassVar[str] = "invocation.finished"
    request: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBound(AgentEvent):
    """The agent's memory: a LoRA (`lora`, its directory, and `lora_name`, the model name that requests use: both or
    neither), and/or a prompt prefix as exactly one of `token_ids` (each 0 to 2**32-1), `text` and `messages` (OpenAI
    chat form). `model` is the base model's served name. At least one of LoRA, prefix and `model` is given."""

    type: ClassVar[str] = "memory.bound"
    lora: str | None = None
    lora_name: str | None = None
    token_ids: list[int] | None = None
    text: str | None = None
    messages: list[dict[str, Any]] | None = None
    cache_salt: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        check_id("agent", self.agent)
        check_nesting("messages", self.messages)
        prefixes = sum(value is not None for value in (self.token_ids, self.text, self.messages))
        if prefixes > 1:
            raise ValueError("give at most one of 'token_ids', 'text' and 'messages'")
        if prefixes == 0 and self.lora is None and self.model is None:
            raise ValueError("give a 'lora', a prefix or a 'model'")
        if (self.lora is None) != (self.lora_name is None):
            raise ValueError("'lora' and 'lora_name' go together")
        if self.lora_name is not None:
            check_id("lora_name", self.lora_name)
        if self.token_ids is not None and not all(0 <= token < 2**32 for token in self.token_ids):
            raise ValueError("'token_ids' must be whole numbers from 0 to 2**32-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUnbound(AgentEvent):
    """The agent no longer uses the memory that it bound."""

    type: ClassVar[str] = "memory.unbound"


EVENT_TYPES: dict[str, type[Event]] = {
    cls.type: cls
    for cls in (
        StreamOpened,
        StreamClosed,
        StateSnapshot,
        StepAdvanced,
        AgentRegistered,
        AgentReleased,
        ActivityStarted,
        AgentMoved,
        AgentWoken,
        AgentIdled,
        PathDeclared,
        AgentActivated,
        PlanDeclared,
        InvocationStarted,
        InvocationFinished,
        MemoryBound,
        MemoryUnbound,
    )
}
