"""Recorded traffic of a chat service, scaled to a small model: Mooncake's traces.

A line per request: `timestamp` in milliseconds, `input_length` and `output_length` in tokens, and `hash_ids`, one per
512 tokens of the prompt; equal ids at the heads of two prompts are a prefix that both share. Here 512 tokens become
`block_tokens`, and so each length shrinks by the same factor; an id gives the same tokens wherever it comes, so that
what was shared still is. Format: https://github.com/kvcache-ai/Mooncake
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final

from bench.background.requests import token_ids

RECORDED_BLOCK: Final = 512  # tokens
BLOCK_TOKENS: Final = 32


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that comes `at` seconds after the first: its prompt's length, and the ids of its blocks."""

    at: float
    prompt_tokens: int
    output_tokens: int
    block_tokens: int
    hash_ids: tuple[int, ...]

    def prompt(self) -> list[int]:
        """Return the token ids."""
        blocks = (token_ids(Random(f"mooncake {block}"), self.block_tokens) for block in self.hash_ids)
        return [token for block in blocks for token in block][: self.prompt_tokens]


def read_arrivals(
    path: Path, *, rate: float, longest: int, block_tokens: int = BLOCK_TOKENS
) -> list[Arrival]:
    """Read a trace, its time stretched so that on average `rate` requests come in a second.

    Requests whose prompt and answer together are longer than `longest` tokens after scaling are left out: cut, the
    turns of one long conversation would be the same prompt. Raises `ValueError` where the file is no such trace, or
    nothing in it is short enough.
    """
    scale = block_tokens / RECORDED_BLOCK
    kept: list[Arrival] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                arrival = _arrival(json.loads(line), scale, block_tokens)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: this is no request of a trace: {error!r}") from None
            if arrival.prompt_tokens + arrival.output_tokens <= longest:
                kept.append(arrival)
    if not kept:
        raise ValueError(f"{path}: no request fits into {longest} tokens")
    first, seconds = kept[0].at, kept[-1].at - kept[0].at
    stretch = (len(kept) - 1) / rate / seconds if seconds else 0.0
    return [replace(arrival, at=(arrival.at - first) * stretch) for arrival in kept]


def _arrival(said: dict[str, Any], scale: float, block_tokens: int) -> Arrival:
    return Arrival(
        at=said["timestamp"] / 1000,
        prompt_tokens=max(1, round(said["input_length"] * scale)),
        output_tokens=max(1, round(said["output_length"] * scale)),
        block_tokens=block_tokens,
        hash_ids=tuple(said["hash_ids"]),
    )
