"""The live stream, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType

from scalesim_daemon.api_models import ClockState, Decision
from scalesim_daemon.ctl.client import Message
from scalesim_daemon.ctl.views.texts import NONE, clock, line, step_words


def lines(message: Message, at: str) -> RenderableType:
    """What a message says, each thing on a line of its own, heard at a time."""
    return Group(*(line(f"{at} {told}") for told in _told(message)))


def _told(message: Message) -> Iterator[str]:
    data = message.data
    match message.event:
        case "snapshot":
            yield f"snapshot: mode {data['mode']}, {len(data['agents'])} agents of {len(data['clocks'])} sources"
        case "mode":
            yield f"mode {data['mode']}"
        case "clocks":
            for source, state in data.items():
                yield f"clock of {source}: {clock(ClockState.model_validate(state))}"
        case "agents":
            yield from map(_agent, data["changed"])
            yield from (f"agent {key}: gone" for key in data["gone"])
        case "decisions":
            yield from (_decision(Decision.model_validate(one)) for one in data)
        case other:
            yield f"{other}: {data}"


def _agent(row: dict[str, Any]) -> str:
    due = "far" if row["due"] is None else f"due at {row['due']:g} of {row['source']}"
    facts = [due, f"memory on {row['tier'] or NONE}"]
    if row["resident"] is not None:
        facts.append(f"{row['resident']:.0%} of its prefix resident")
    if row["in_flight"]:
        facts.append(f"{row['in_flight']} in flight")
    if row["pinned"]:
        facts.append("pinned")
    return f"agent {row['key']}: {', '.join(facts)}"


def _decision(decision: Decision) -> str:
    step = decision.step
    return f"{decision.engine}: {step_words(step)} of {step.key}, {step.reason}: {decision.result}"
