"""What daemons tell each other of a stream, and its form in Redis: msgpack. Pure.

`Told` is one agent as one source speaks of it, `Head` the source itself, and `Word` what has changed since the last
word. A prompt's prefix goes by its hash; its `Content` is told where it is asked for.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from scalesim_client.events import ClockKind
from scalesim_daemon.population import Memory

# What can't be so is refused where it is read: nobody can order what is no number, or count without end.
MOST_CALLS = 10_000
_LARGEST = sys.float_info.max
_Finite = Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]
_Positive = Annotated[float, Meta(gt=0, le=_LARGEST)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Calls = Annotated[int, Meta(ge=0, le=MOST_CALLS)]
# Redis's scripts count in floats.
_EXACT = 2**53


class Bound(msgspec.Struct, array_like=True, frozen=True):
    """An agent's memory by name: a LoRA's directory and served name, the prefix by the hash of its content."""

    lora: str | None = None
    lora_name: str | None = None
    model: str | None = None
    cache_salt: str | None = None
    content: str | None = None


class Told(msgspec.Struct, array_like=True, frozen=True):
    """One agent: its due on the source's clock, None where no invocation is foreseen; and how many of its requests are
    being served."""

    due: _Finite | None = None
    confidence: _Share = 0.0
    basis: str = ""
    in_flight: _Calls = 0
    memory: Bound | None = None


class Head(msgspec.Struct, array_like=True, frozen=True):
    """A source: its clock, in wall seconds per unit, how likely its estimates are right where recency says the
    opposite, and whether it tells of calls. `whole` says that all its agents have been told."""

    clock: ClockKind
    now: _Finite
    pace: _Positive
    step: _Positive
    chance: _Share
    tells_calls: bool
    whole: bool


class Word(msgspec.Struct, array_like=True, frozen=True):
    """What has changed: agents as they are now, None for those that are gone, how often each has called since the last
    word, and who was woken."""

    head: Head
    agents: dict[str, Told | None] = {}
    calls: dict[str, _Calls] = {}
    woken: list[str] = []


class Owner(msgspec.Struct, frozen=True, order=True):
    """Which daemon speaks for a source. The greater one is right: a later incarnation of the source, then a later
    fence. `number` counts the daemon's words."""

    incarnation: int
    fence: int
    number: int
    daemon: str

    def __str__(self) -> str:
        return f"{self.incarnation} {self.fence} {self.number} {self.daemon}"

    @property
    def claim(self) -> tuple[int, int]:
        """What decides between two daemons."""
        return self.incarnation, self.fence

    @classmethod
    def read(cls, text: bytes) -> Owner:
        """Return what was written. Raises `ValueError` for what is none."""
        *numbers, daemon = text.decode().split(" ", 3)
        incarnation, fence, number = map(int, numbers)
        if not all(0 <= one < _EXACT for one in (incarnation, fence, number)):
            raise ValueError(f"an owner whose numbers no daemon has given: {text[:100]!r}")
        return cls(incarnation, fence, number, daemon)


class Engine(msgspec.Struct, frozen=True, omit_defaults=True):
    """An engine as the daemon that drives it sees it. `models` has the base models and LoRAs that it serves, None where
    that isn't known; `room` is how many tokens or slots it holds."""

    daemon: str
    url: str
    alive: bool
    models: list[str] | None = None
    room: Annotated[int, Meta(ge=0, lt=_EXACT)] = 0


Content = dict[str, Any]

pack = msgspec.msgpack.Encoder().encode
read_told = msgspec.msgpack.Decoder(Told).decode
read_word = msgspec.msgpack.Decoder(Word).decode
read_head = msgspec.msgpack.Decoder(Head).decode
read_engine = msgspec.msgpack.Decoder(Engine).decode
read_names = msgspec.msgpack.Decoder(dict[str, str]).decode
_read_content = msgspec.msgpack.Decoder(Content).decode


def plain(text: str) -> str:
    """Return a text as it can be told: JSON can spell strings that have no UTF-8."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def content_of(memory: Memory) -> bytes | None:
    """Return a memory's prefix as it is told; None where it has none, or none that has a form in UTF-8."""
    try:
        if memory.token_ids is not None:
            return pack({"token_ids": memory.token_ids.tobytes()})
        if memory.text is not None:
            return pack({"text": memory.text})
        if memory.messages is not None:
            return pack({"messages": memory.messages})
    except UnicodeEncodeError:
        pass
    return None


def hash_of(content: bytes) -> str:
    """Return what a content goes by: 128 bits of its BLAKE2b."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def memory_of(bound: Bound, content: bytes | None) -> Memory:
    """Return the memory that was told, without its prefix where the content isn't at hand. Raises `ValueError` for a
    content that isn't what its hash says."""
    fields: Content = {}
    if content is not None:
        if hash_of(content) != bound.content:
            raise ValueError("a content that isn't what its hash says")
        fields = _read_content(content)
    tokens, messages = fields.get("token_ids"), fields.get("messages")
    return Memory(
        bound.lora,
        bound.lora_name,
        None if tokens is None else array("I", tokens),
        fields.get("text"),
        None if messages is None else tuple(messages),
        bound.cache_salt,
        bound.model,
    )
