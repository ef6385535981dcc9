"""Recordings for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scalesim_daemon.recording.format import MAGIC, VERSION, End, Header, Message, Record, Request, to_line
from scalesim_daemon.recording.replay import Tally, replay
from scalesim_daemon.recording.targets import EngineTarget, Target

HEADER = Header(MAGIC, VERSION, 1.8e9, True)
CHAT = "/v1/chat/completions"


def opened(source: str, incarnation: int = 1, **more: Any) -> dict[str, Any]:
    """The event that opens a source's stream of the simulation `village`."""
    stream = {"simulation": "village", "source": source, "incarnation": incarnation, "clock": "step"}
    return {"type": "stream.opened", "schema_version": "1.0", **stream, **more}


def until(agent: str, step: float) -> dict[str, Any]:
    """An event that makes an agent due."""
    return {"type": "agent.activity_started", "agent": agent, "until": step}


VILLAGE: list[Record] = [
    Message(0.0, "village-1", 0, [opened("village-1", 77)]),
    Message(0.1, "village-1", 1, [until("rosa", 6), {"type": "step.advanced", "now": 2}]),
    Message(0.1, "anonymous", None, [{"type": "agent.woken", "agent": "a"}]),
    Request(
        0.2,
        "village/rosa",
        CHAT,
        {"model": "base", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]},
    ),
    Message(
        0.2, "village-1", 3, [until("ben", 9), {"type": "agent.moved", "agent": "x", "speed": float("nan")}]
    ),
    Message(0.3, "poster/1", None, [opened("poster/1", 5, simulation="post"), until("c", 4)]),
    Message(0.3, "poster/1", None, [until("d", 5)]),
    End(0.4, "closed"),
]
DISTANCES = {"village/rosa": 4.0, "village/ben": 7.0, "anonymous/a": 0.0, "post/c": 4.0, "post/d": 5.0}


def written(path: Path, *records: Record, header: Header | None = HEADER, more: bytes = b"") -> Path:
    """Write a recording, and return its path."""
    lines = [to_line(record) for record in ([] if header is None else [header, *records])]
    path.write_bytes(b"".join(lines) + more)
    return path


async def played(
    records: list[Record],
    target: Target,
    *,
    engine: EngineTarget | None = None,
    speed: float = 0.0,
    content: bool = True,
    read: Callable[[int], None] = lambda _: None,
) -> Tally:
    """Replay records, and return what was sent."""
    tally = Tally()
    numbered = list(enumerate(records, start=1))
    await replay(
        numbered,
        offset=0,
        content=content,
        speed=speed,
        target=target,
        engine=engine,
        tally=tally,
        read=read,
    )
    return tally


def distances(answer: Any) -> dict[str, float]:
    """Return the finite distances of a page of agents."""
    agents = json.loads(answer.content)["agents"]
    return {agent["key"]: agent["distance"] for agent in agents if agent["distance"] is not None}
