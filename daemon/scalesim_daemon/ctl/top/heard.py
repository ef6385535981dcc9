"""What the stream has told: every agent, and how far it is by its stream's clock."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scalesim_adapters.base import Tier
from scalesim_daemon.api_models import ClockState
from scalesim_daemon.ctl.client import Message

NEAREST_TIER = {tier: place for place, tier in enumerate(Tier)}


class Order(StrEnum):
    """By what agents are sorted; equals by key."""

    DISTANCE = "distance"
    TIER = "tier"
    RESIDENT = "resident"
    AGENT = "agent"

    def next(self) -> Order:
        """Return the order that comes after this one, the first after the last."""
        orders = list(Order)
        return orders[(orders.index(self) + 1) % len(orders)]


@dataclass(frozen=True, slots=True)
class Heard:
    """One agent as the stream tells of it: `due` is a value of the clock of `source`, null where no invocation is
    foreseen; `resident` is the share of its prefix that is on a device."""

    key: str
    due: float | None
    source: str | None
    tier: str | None
    resident: float | None
    in_flight: int
    pinned: bool


class Population:
    """All agents, as of the last message."""

    def __init__(self) -> None:
        self.mode = ""
        self.clocks: dict[str, ClockState] = {}
        self.agents: dict[str, Heard] = {}

    def hear(self, message: Message) -> None:
        """Take a message in."""
        data = message.data
        match message.event:
            case "snapshot":
                self.mode = data["mode"]
                self.clocks = _clocks(data["clocks"])
                self.agents = {row["key"]: Heard(**row) for row in data["agents"]}
            case "mode":
                self.mode = data["mode"]
            case "clocks":
                self.clocks = _clocks(data)
            case "agents":
                self.agents.update((row["key"], Heard(**row)) for row in data["changed"])
                for key in data["gone"]:
                    self.agents.pop(key, None)

    def distance(self, agent: Heard) -> float:
        """Return how far an agent is, in units of its clock."""
        clock = self.clocks.get(agent.source or "")
        return math.inf if agent.due is None or clock is None else max(0.0, agent.due - clock.now)

    def seconds(self, agent: Heard) -> float:
        """Return how far an agent is in wall seconds; where its clock's pace isn't known a unit counts as one."""
        clock = self.clocks.get(agent.source or "")
        return self.distance(agent) * (1.0 if clock is None or clock.pace is None else clock.pace)

    def first(self, count: int, order: Order, text: str) -> tuple[list[Heard], int]:
        """Return the first agents with `text` in their keys, and how many have it."""
        meant = [agent for agent in self.agents.values() if text in agent.key]
        return heapq.nsmallest(count, meant, key=self._rank(order)), len(meant)

    def _rank(self, order: Order) -> Callable[[Heard], Any]:
        match order:
            case Order.DISTANCE:
                return lambda agent: (not agent.in_flight, self.seconds(agent), agent.key)
            case Order.TIER:
                return lambda agent: (_tier_rank(agent.tier), self.seconds(agent), agent.key)
            case Order.RESIDENT:
                return lambda agent: (-(agent.resident or 0.0), self.seconds(agent), agent.key)
            case Order.AGENT:
                return lambda agent: agent.key


def _clocks(told: dict[str, Any]) -> dict[str, ClockState]:
    return {source: ClockState.model_validate(state) for source, state in told.items()}


def _tier_rank(tier: str | None) -> int:
    return len(NEAREST_TIER) if tier is None else NEAREST_TIER[Tier(tier)]
