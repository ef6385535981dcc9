"""The words of the paper's own front end, SScheduler: its updates, and how it names agents and LoRAs. Pure.

Once a step it posts how many steps away each agent's next call is:
`{"agent_data": {agent: distance}, "timestep_data": {distance: [agent, ...]}, "timestep_cnt": step}`. Both maps say the
same, and who isn't in them is far. `timestep_cnt` counts the updates that were answered with 200 (`send_result` of
`Scheduler.py` in the paper's code); its engine names the LoRA of agent 7 `lora7` and finds 7 in a request's `agent_id`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from scalesim_client.events import check_id

LARGEST = 2**52
"""Steps and distances up to here add up exactly in a float."""
MOST_AGENTS = 100_000
NUMBER = re.compile(r"-?\d{1,20}(\.\d{1,20})?")
PLACEHOLDER = "{agent_id}"
_SHOWN = 80


class BadUpdate(ValueError):
    """An update that can't be taken. `field` is the way to what is wrong with it."""

    def __init__(self, field: tuple[str | int, ...], reason: str) -> None:
        super().__init__(f"{'.'.join(map(str, field)) or 'the body'}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Update:
    """What holds at one step: each agent's distance in steps; who isn't there is far."""

    step: int
    distances: Mapping[str, int]


def read_update(body: bytes) -> Update:
    """Return the update in a request's body. A part of a step counts as a whole one. Raises `BadUpdate`."""
    said = _parse(body)
    if not isinstance(said, dict):
        raise BadUpdate((), "an update is a map with agent_data, timestep_data and timestep_cnt")
    step = _amount(said.get("timestep_cnt"), "timestep_cnt")
    if step != int(step):
        raise BadUpdate(("timestep_cnt",), f"steps are whole numbers, got {step}")
    by_agent = None if said.get("agent_data") is None else _by_agent(said["agent_data"])
    by_distance = None if said.get("timestep_data") is None else _by_distance(said["timestep_data"])
    if by_agent is None and by_distance is None:
        raise BadUpdate(
            ("agent_data",), "neither agent_data nor timestep_data is there: one of them is needed"
        )
    if by_agent is not None and by_distance is not None:
        _compare(by_agent, by_distance)
    distances = by_agent if by_agent is not None else by_distance or {}
    if len(distances) > MOST_AGENTS:
        field = "timestep_data" if by_agent is None else "agent_data"
        raise BadUpdate((field,), f"an update tells of at most {MOST_AGENTS} agents, got {len(distances)}")
    return Update(int(step), distances)


def agent_of(body: Mapping[str, Any]) -> str | None:
    """Return the agent that a request's body names as this front end does; None where it names none."""
    agent = body.get("agent_id")
    if isinstance(agent, bool) or not isinstance(agent, str | int):
        return None
    try:
        check_id("agent_id", str(agent))
    except ValueError:
        return None
    return str(agent)


def lora_name(agent: str) -> str:
    """Return the name under which an engine serves an agent's LoRA."""
    return f"lora{agent}"


def lora_of(template: str, agent: str) -> dict[str, str]:
    """Return the name of an agent's LoRA and where it lies, as `memory.bound` says it; raises `BadUpdate` for an agent
    that a path or a LoRA's name can't name."""
    if PLACEHOLDER in template and ("/" in agent or "\0" in agent or agent in (".", "..")):
        raise BadUpdate(
            ("agent_data", _shown(agent)), "its LoRA has no path: sscheduler.loras takes plain names"
        )
    try:
        check_id("the name of its LoRA", lora_name(agent))
    except ValueError as error:
        raise BadUpdate(("agent_data", _shown(agent)), str(error)) from None
    return {"lora": template.replace(PLACEHOLDER, agent), "lora_name": lora_name(agent)}


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except BadUpdate:
        raise
    except (ValueError, RecursionError) as error:
        raise BadUpdate((), f"malformed JSON: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise BadUpdate((_shown(twice),), "is said twice")
    return found


def _by_agent(said: Any) -> dict[str, int]:
    if not isinstance(said, dict):
        raise BadUpdate(("agent_data",), "must be a map of agents to distances")
    return {
        _agent(agent, "agent_data", _shown(agent)): math.ceil(_amount(distance, "agent_data", _shown(agent)))
        for agent, distance in said.items()
    }


def _by_distance(said: Any) -> dict[str, int]:
    if not isinstance(said, dict):
        raise BadUpdate(("timestep_data",), "must be a map of distances to lists of agents")
    found: dict[str, int] = {}
    for key, agents in said.items():
        field = ("timestep_data", _shown(key))
        distance = math.ceil(_amount(float(key) if NUMBER.fullmatch(key) else key, *field))
        if not isinstance(agents, list):
            raise BadUpdate(field, "must be a list of agents")
        for index, agent in enumerate(agents):
            name = _agent(agent, *field, index)
            if found.setdefault(name, distance) != distance:
                raise BadUpdate((*field, index), f"agent {_shown(name)} is at distance {found[name]} too")
    return found


def _compare(by_agent: Mapping[str, int], by_distance: Mapping[str, int]) -> None:
    for agent in by_agent.keys() | by_distance.keys():
        one, other = by_agent.get(agent, "far"), by_distance.get(agent, "far")
        if one != other:
            raise BadUpdate(
                ("agent_data", _shown(agent)), f"is {one} here, but {other} by timestep_data: who is right?"
            )


def _agent(said: Any, *field: str | int) -> str:
    if isinstance(said, bool) or not isinstance(said, str | int):
        raise BadUpdate(field, "agents are named by strings or whole numbers")
    try:
        check_id("an agent's name", str(said))
    except UnicodeEncodeError:
        raise BadUpdate(field, "an agent's name must have a form in UTF-8") from None
    except ValueError as error:
        raise BadUpdate(field, str(error)) from None
    return str(said)


def _amount(said: Any, *field: str | int) -> float:
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise BadUpdate(field, "must be a number of steps")
    if not 0 <= said <= LARGEST:
        raise BadUpdate(field, "must be from 0 to 2**52")
    return said


def _shown(name: str) -> str:
    """What can be answered of a name, whatever stands in it."""
    return name[:_SHOWN].encode(errors="backslashreplace").decode()
