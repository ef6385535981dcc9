"""What others hold their codecs against: `client/golden/wire.json`, and the table of events in `docs/wire.md`.

`python -m tests.client.wire_page` writes both anew from the Python client; a test says where they are behind it.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from bench.results.pages import with_part
from scalesim_client.codec import encode, pack_control, pack_event, pack_frames
from scalesim_client.events import (
    CLOCK_KINDS,
    EVENT_TYPES,
    ActivityStarted,
    AgentActivated,
    AgentIdled,
    AgentMoved,
    AgentRegistered,
    AgentReleased,
    AgentWoken,
    Event,
    InvocationFinished,
    InvocationStarted,
    MemoryBound,
    MemoryUnbound,
    PathDeclared,
    PlanDeclared,
    StateSnapshot,
    StepAdvanced,
    StreamClosed,
    StreamOpened,
)

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "client" / "golden" / "wire.json"
PAGE = ROOT / "docs" / "wire.md"
MARKS = ("<!-- events: written by `make wire` -->", "<!-- end of events -->")

TS = 1795341639.875
TOPIC = "Stanford@1"
NUMBERS = (0, 1, 258, 2**32, 2**63)
LONG_NAME = "Zoë_" * 50
LONGER = "x" * 257

# Whole numbers stand for themselves: languages that know one kind of number write them as integers.
EVENTS: dict[str, Event] = {
    "stream.opened": StreamOpened(
        simulation="village", source="west", incarnation=1795341639875, clock="sim_seconds"
    ),
    "stream.closed": StreamClosed(),
    "state.snapshot": StateSnapshot(
        part=0,
        of=1,
        now=4.5,
        events=[
            {"type": "agent.registered", "agent": "Ada"},
            {"type": "agent.activity_started", "agent": "Ada", "until": 9, "now": 2},
        ],
    ),
    "state.snapshot of nothing": StateSnapshot(part=0, of=1, events=[]),
    "step.advanced": StepAdvanced(now=2.25),
    "step.advanced, numbers of one byte": StepAdvanced(now=200),
    "step.advanced, numbers of two bytes": StepAdvanced(now=65_535),
    "step.advanced, numbers of four bytes": StepAdvanced(now=4_000_000_000),
    "step.advanced, numbers of eight bytes": StepAdvanced(now=2**53 - 1),
    "agent.registered": AgentRegistered(agent="Ada"),
    "agent.registered, a long name": AgentRegistered(agent=LONG_NAME),
    "agent.released": AgentReleased(agent="Zoë"),
    "agent.activity_started": ActivityStarted(agent="Ada", for_=2.5, activity="cook"),
    "agent.activity_started, until": ActivityStarted(agent="Ada", until=30),
    "agent.moved": AgentMoved(
        agent="Ada", xy=(1.5, -2), place="park", destination=(40, -0.125), speed=8, vision=3
    ),
    "agent.moved, a place alone": AgentMoved(agent="Ada", place="café"),
    "agent.woken": AgentWoken(agent="Ada"),
    "agent.idled": AgentIdled(agent="Ada"),
    "path.declared": PathDeclared(path="rumour", edges=[("Ada", "Bob"), ("Ada", "Cyd")], hop=1.5),
    "path.declared, a chain": PathDeclared(path="rumour", nodes=["Ada", "Bob", "Cyd"], hop=0.5),
    "agent.activated": AgentActivated(agent="Ada", path="rumour", served=True),
    "plan.declared": PlanDeclared(agents=["Ada", "Bob"], at=12, not_before=2),
    "plan.declared, probabilities": PlanDeclared(agents=["Ada", "Bob", "Cyd"], probabilities=[0.5, 1, 0]),
    "plan.declared, many agents": PlanDeclared(agents=[f"a{number}" for number in range(40)]),
    "invocation.started": InvocationStarted(agent="Ada", request="r1"),
    "invocation.started, one at a time": InvocationStarted(agent="Ada"),
    "invocation.finished": InvocationFinished(agent="Ada", request="r1"),
    "memory.bound": MemoryBound(
        agent="Ada",
        lora="/loras/ada",
        lora_name="ada",
        token_ids=[0, 127, 128, 65_536, 2**32 - 1],
        cache_salt="s",
        model="base",
    ),
    "memory.bound, text": MemoryBound(agent="Ada", text="persona-" * 40),
    "memory.bound, messages": MemoryBound(
        agent="Ada", messages=[{"role": "system", "content": 'You are "Ada".\n'}]
    ),
    "memory.unbound": MemoryUnbound(agent="Ada"),
}

CONTROLS: dict[str, bytes] = {
    "welcome": pack_control("welcome", last_seq=0),
    "welcome that asks for a snapshot": pack_control("welcome", last_seq=3, resync=True),
    "welcome that refuses": pack_control(
        "welcome", last_seq=-1, error="schema version 2.0 is not supported, only 1.0"
    ),
    "resync after a gap": pack_control("resync", last_seq=70_000),
    "resync to a stranger": pack_control("resync", last_seq=-1),
}


def golden() -> dict[str, Any]:
    """Return every case: what is said, and the bytes that say so."""
    return {
        "schema_version": "1.0",
        "ts": TS,
        "topic": TOPIC,
        "events": [
            _event_case(name, event, NUMBERS[index % len(NUMBERS)])
            for index, (name, event) in enumerate(EVENTS.items())
        ],
        "controls": [
            {"name": name, "frames": _hex(pack_frames("scalesimd", number, payload))}
            for number, (name, payload) in enumerate(CONTROLS.items())
        ],
    }


def _event_case(name: str, event: Event, seq: int) -> dict[str, Any]:
    return {
        "name": name,
        "event": event.to_wire(),
        "msgpack": pack_event(event).hex(),
        "json": encode(TS, [event], json=True).decode(),
        "seq": str(seq),
        "frames": _hex(pack_frames(TOPIC, seq, encode(TS, [event]))),
    }


def _hex(frames: list[bytes]) -> list[str]:
    return [frame.hex() for frame in frames]


def table() -> str:
    """Return the part of the page that follows from `scalesim_client.events`."""
    return "\n".join(_section(name, kind) for name, kind in EVENT_TYPES.items())


def _section(name: str, kind: type[Event]) -> str:
    said = " ".join((kind.__doc__ or "").replace("for_", "for").split())
    example = json.dumps(EVENTS[name].to_wire(), ensure_ascii=False)
    lines = [f"### `{name}`", "", said, ""]
    rows = [_row(kind, field) for field in fields(kind)]
    if rows:
        lines += ["| field | type | if left out |", "|---|---|---|", *rows, ""]
    return "\n".join([*lines, "```json", example, "```", ""])


def _row(kind: type[Event], field: Field[Any]) -> str:
    name = field.name.rstrip("_")
    annotation = get_type_hints(kind)[field.name]
    if field.default is MISSING:
        absent = "not allowed"
    else:
        absent = "-" if field.default is None else f"`{json.dumps(field.default)}`"
    return f"| `{name}` | {_limited(kind, name, annotation)} | {absent} |"


def _limited(kind: type[Event], name: str, annotation: Any) -> str:
    """Return a type in words; what limits it is found out by trying values beyond them."""
    word = _word(annotation)
    for many in ([LONGER], [(LONGER, LONGER)]):
        if word.startswith("array") and word.endswith("text") and _refuses(kind, name, many):
            return word.replace("text", "id")
    if word == "text" and _refuses(kind, name, LONGER):
        return f"one of {', '.join(f'`{kind}`' for kind in CLOCK_KINDS)}" if name == "clock" else "id"
    if word == "number" and _refuses(kind, name, -1.0):
        return "number, at least 0"
    return word


def _refuses(kind: type[Event], name: str, value: Any) -> bool:
    """Say whether no example of a kind may have this value in that field."""
    return not any(
        _is_valid(kind, event.to_wire() | {name: value})
        for event in EVENTS.values()
        if type(event) is kind and name in event.to_wire()
    )


def _is_valid(kind: type[Event], wire: dict[str, Any]) -> bool:
    known = {field.name.rstrip("_"): field.name for field in fields(kind)}
    try:
        kind(**{known[key]: value for key, value in wire.items() if key in known})
    except ValueError:
        return False
    return True


def _word(annotation: Any) -> str:
    if isinstance(annotation, UnionType):
        (annotation,) = (choice for choice in get_args(annotation) if choice is not NoneType)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        return f"array of {len(arguments)}: {_word(arguments[0])}"
    if origin is list:
        return f"array of: {_word(arguments[0])}"
    if origin is dict:
        return "map"
    words = {str: "text", float: "number", int: "whole number", bool: "true or false"}
    return words.get(annotation, "text")


def page() -> str:
    """Return the page with its table renewed."""
    return with_part(PAGE.read_text(), MARKS, table())


def golden_text() -> str:
    """Return the file of golden bytes, one case a line."""
    parts = {key: json.dumps(value, ensure_ascii=False) for key, value in golden().items()}
    for key in ("events", "controls"):
        cases = (json.dumps(case, ensure_ascii=False) for case in golden()[key])
        parts[key] = "[\n  " + ",\n  ".join(cases) + "\n]"
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {value}" for key, value in parts.items()) + "\n}\n"


def main() -> None:
    """Write both."""
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(golden_text())
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
