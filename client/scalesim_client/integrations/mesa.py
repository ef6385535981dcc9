"""Mesa: `class Villager(ScaleSimAgent, mesa.Agent)`, and `attach(model, publisher)` once the model is made.

The stream's clock is the model's `steps`. Written for Mesa 3.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from functools import wraps
from numbers import Real
from typing import Any

from scalesim_client.events import AgentRegistered, AgentReleased
from scalesim_client.integrations.harmless import harmless, invoking
from scalesim_client.publisher import Publisher
from scalesim_client.tags import RequestTags

_UNTOLD: Any = object()


class ScaleSimAgent:
    """Mixin, named before Mesa's class. Until its model is attached, what it says goes nowhere.

    After each step it is told where the agent is: `pos`, or its cell's coordinate, and, where it has them, its
    `destination` (a point), `speed` (space units per step) and `vision` (space units).
    """

    model: Any
    unique_id: int

    @property
    def sidecar_name(self) -> str:
        """The agent's name in events and tags, unique in the model: `unique_id` unless overridden."""
        return str(self.unique_id)

    def acts(self, steps: float) -> None:
        """Say that the agent acts without the LLM for so many steps from now."""
        publisher = _publisher(self.model)
        if publisher is not None:
            with harmless("an activity"):
                publisher.activity(self.sidecar_name, for_=steps)

    def invocation(self) -> AbstractContextManager[RequestTags]:
        """Say that an LLM request of the agent runs: `with self.invocation() as tags: create(..., **tags)`."""
        with harmless("a request's agent"):
            return invoking(_publisher(self.model), self.sidecar_name)
        return invoking(None, "")


def attach(model: Any, publisher: Publisher) -> None:
    """Have a Mesa model say its clock before each step, and after it who came, went and moved.

    Costs one look at each agent per step. Agents without the mixin are not spoken of.
    """
    crowd = _Crowd(model, publisher)
    step = model.step

    @wraps(step)
    def told(*args: Any, **kwargs: Any) -> Any:
        with harmless("Mesa's clock"):
            publisher.step(model.steps + 1)
        result = step(*args, **kwargs)
        crowd.tell()
        return result

    model.scalesim_publisher = publisher
    model.step = told
    crowd.tell()


class _Crowd:
    """What has been said of a model's agents."""

    def __init__(self, model: Any, publisher: Publisher) -> None:
        self._model = model
        self._publisher = publisher
        self._told: dict[str, Any] = {}

    def tell(self) -> None:
        with harmless("who is where in Mesa"):
            there = {}
            for agent in self._model.agents:
                if isinstance(agent, ScaleSimAgent):
                    with harmless("the name of an agent in Mesa"):
                        there[agent.sidecar_name] = agent
            for name in self._told.keys() - there.keys():
                del self._told[name]
                self._publisher.send(AgentReleased(agent=name))
            for name, agent in there.items():
                with harmless("where an agent is in Mesa"):
                    self._tell_of(name, agent)

    def _tell_of(self, name: str, agent: Any) -> None:
        motion = _motion(agent)
        told = self._told.get(name, _UNTOLD)
        if told is _UNTOLD:
            self._publisher.send(AgentRegistered(agent=name))
        if motion is not None and motion != told:
            self._publisher.moved(name, **motion)
        self._told[name] = motion


def _publisher(model: Any) -> Publisher | None:
    publisher: Publisher | None = getattr(model, "scalesim_publisher", None)
    return publisher


def _motion(agent: Any) -> dict[str, Any] | None:
    """Return the fields of `agent.moved`, None where the agent has no place in the plane."""
    here = _point(agent.pos) or _point(getattr(getattr(agent, "cell", None), "coordinate", None))
    if here is None:
        return None
    return {
        "xy": here,
        "destination": _point(getattr(agent, "destination", None)),
        "speed": _amount(getattr(agent, "speed", None)),
        "vision": _amount(getattr(agent, "vision", None)),
    }


def _point(value: Any) -> tuple[float, float] | None:
    try:
        x, y = value
        return float(x), float(y)
    except (TypeError, ValueError):
        return None


def _amount(value: Any) -> float | None:
    """Return a number that an event may hold: an attribute of that name can mean anything in somebody's model."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    amount = float(value)
    return amount if math.isfinite(amount) and amount >= 0 else None
