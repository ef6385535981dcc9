"""Read one day of generative agents from a GenerativeAgentsCN report (Markdown, Chinese text).

The report begins with the personas (`## name` and lines of facts). Then comes, every ten simulated minutes,
`# 20240213-06:00` with an activity record (`### name`, `位置：place`, `活动：activity`; a place's words go
from the whole to the part, separated by `，`) and, where people talked, headings `### A -> B @ place`.
Format: https://github.com/x-glacier/GenerativeAgentsCN
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_SLOT = re.compile(r"^# \d{8}-(\d\d:\d\d)$", re.MULTILINE)
_PERSONA = re.compile(r"^## (\S+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_RECORD = re.compile(r"^### (\S+)\n位置：(.*?)\s*\n活动：(.*?)\s*$", re.MULTILINE)
_TALK = re.compile(r"^### (\S+) -> (\S+) @ ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Doing:
    """Where an agent is, from the whole to the part, and what it does there."""

    place: tuple[str, ...]
    activity: str


@dataclass(frozen=True, slots=True)
class Slot:
    """Ten simulated minutes from `time` on: what each agent does, and who talks with whom."""

    time: str
    doing: dict[str, Doing]
    talks: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Day:
    """The report: each agent's persona, and the slots in order."""

    personas: dict[str, str]
    slots: tuple[Slot, ...]


def read_day(path: Path) -> Day:
    """Read a report. Raises `ValueError` where the file is none."""
    return parse_day(path.read_text(encoding="utf-8"))


def parse_day(text: str) -> Day:
    """Parse a report's text. Whom a later record leaves out goes on as before.

    Raises `ValueError` where the text has no personas or no slots, or the first record isn't about them all.
    """
    head, *rest = _SLOT.split(text)
    personas = {name: facts.strip() for name, facts in _PERSONA.findall(head)}
    slots: list[Slot] = []
    for time, body in zip(rest[::2], rest[1::2], strict=True):
        slots.append(_slot(time, body, slots[-1].doing if slots else {}))
    if not personas or not slots:
        raise ValueError("this is no GenerativeAgentsCN report: it has no personas or no times of day")
    known: set[str] = set(slots[0].doing)
    if known != set(personas):
        raise ValueError(f"the first activity record and the personas differ: {known ^ set(personas)}")
    return Day(personas, tuple(slots))


def _slot(time: str, body: str, before: dict[str, Doing]) -> Slot:
    records = _RECORD.findall(body)
    now = {name: Doing(tuple(place.split("，")), activity) for name, place, activity in records}
    return Slot(time, {**before, **now}, tuple(_TALK.findall(body)))
