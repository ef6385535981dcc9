"""What is known of one agent, and what has happened to agents since somebody looked."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scalesim_daemon.board import Place


@dataclass(frozen=True, slots=True)
class Memory:
    """What an agent bound: a LoRA by directory and served name, and a prompt prefix in one of three forms, of which the
    content is kept under the digest `content` (`prefixes.py`)."""

    lora: str | None = None
    lora_name: str | None = None
    token_ids: array[int] | None = None
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    cache_salt: str | None = None
    model: str | None = None
    content: bytes | None = field(default=None, compare=False)

    @property
    def items(self) -> list[str]:
        """The names of its items: `lora:NAME`, `prefix_kv` and `model:NAME`, of those that are bound."""
        items = [f"lora:{self.lora_name}"] if self.lora_name else []
        if self.token_ids is not None or self.text is not None or self.messages is not None:
            items.append("prefix_kv")
        if self.model:
            items.append(f"model:{self.model}")
        return items


class Agent(Place, gc=False, kw_only=True):
    """One agent, addressed as `<simulation>/<agent>`, its place on the board, and its name in that. `recency` grows
    with each invocation; 0 is never. `bound_by` are the sources that have bound its memory."""

    name: str
    in_flight: int = 0
    recency: int = 0
    invocations: int = 0
    memory: Memory | None = None
    bound_by: tuple[str, ...] = ()

    def claim(self, source: tuple[str, ...]) -> None:
        """A source has bound the agent's memory. Nearly all agents have one: then it is the same tuple."""
        if not self.bound_by:
            self.bound_by = source
        elif source[0] not in self.bound_by:
            self.bound_by += source

    def disclaim(self, source: tuple[str, ...]) -> None:
        """What a source has bound is its no longer."""
        if source[0] in self.bound_by:
            self.bound_by = tuple([one for one in self.bound_by if one not in source])


@dataclass(slots=True)
class Changes:
    """What happened since it was last taken; agents by key, in order. What is `bound_again` is as it was, but for the
    content of a LoRA's files, maybe."""

    dues: set[str] = field(default_factory=set)
    clocks: set[str] = field(default_factory=set)
    started: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    woken: list[str] = field(default_factory=list)
    bound: list[str] = field(default_factory=list)
    bound_again: list[str] = field(default_factory=list)
    unbound: list[str] = field(default_factory=list)
    unused_loras: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    @property
    def pressing(self) -> bool:
        """Whether there is more than dues and clocks."""
        return bool(
            self.started
            or self.finished
            or self.woken
            or self.bound
            or self.bound_again
            or self.unbound
            or self.unused_loras
            or self.closed
        )
