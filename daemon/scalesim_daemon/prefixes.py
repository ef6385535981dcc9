"""The contents of declared prefixes: each once, however many agents share it, and no more than a bound. Pure.

What engines are told of a prefix lies in their trees for as long as it is here: who binds more than there is room for
isn't prefetched until it is bound again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalesim_daemon.agents import Memory

MOST_BYTES = 256 * 1024**2
"""Of contents as they are sent; the tree of an engine takes several times as much of what it is told."""
# Whoever looks for those whose prefix is dropped looks at all agents: some room is made at a time.
_ROOM = 8
_PLAIN_KEPT = 1024
_DIGEST_BYTES = 16


@dataclass(slots=True)
class _Content:
    """What a prefix consists of, in one of three forms, how many agents have it, and what it takes."""

    form: str
    value: Any
    bytes: int
    agents: int = 0


class Prefixes:
    """Keeps the contents of at most `most` bytes, those bound last."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, _Content] = OrderedDict()
        self._plain: dict[Memory, Memory] = {}
        self.bytes = 0
        self.dropped = 0
        """Contents that there was no room for."""

    def __len__(self) -> int:
        """Return how many contents are kept."""
        return len(self._kept)

    def shared(self, memory: Memory) -> Memory:
        """Return what is equal to a memory, with the content that others have, too. It is `taken` then."""
        found = _content_of(memory)
        if found is None:
            if len(self._plain) == _PLAIN_KEPT:
                self._plain.clear()
            return self._plain.setdefault(memory, memory)
        digest, content = found
        kept = self._kept.setdefault(digest, content)
        self._kept.move_to_end(digest)
        return replace(memory, content=digest, **{kept.form: kept.value})

    def bound_again(self, memory: Memory) -> None:
        """An agent has bound what it has."""
        if memory.content is not None:
            self._kept.move_to_end(memory.content)

    def taken(self, memory: Memory) -> None:
        """An agent has this memory, which is `shared`, from now on."""
        if memory.content is not None:
            content = self._kept[memory.content]
            if not content.agents:
                self.bytes += content.bytes
            content.agents += 1

    def left(self, memory: Memory) -> None:
        """An agent has this memory no longer."""
        content = None if memory.content is None else self._kept.get(memory.content)
        if content is not None and memory.content is not None:
            content.agents -= 1
            if not content.agents:
                self.bytes -= content.bytes
                del self._kept[memory.content]

    def make_room(self) -> Collection[bytes]:
        """Drop what was bound longest ago where there is too much; return the digests of that."""
        dropped: set[bytes] = set()
        if self.bytes > self._most:
            while self.bytes > self._most - self._most // _ROOM:
                digest, content = self._kept.popitem(last=False)
                self.bytes -= content.bytes
                dropped.add(digest)
            self.dropped += len(dropped)
        return dropped


def without_content(memory: Memory) -> Memory:
    """Return a memory whose prefix isn't known."""
    return replace(memory, content=None, token_ids=None, text=None, messages=None)


def _content_of(memory: Memory) -> tuple[bytes, _Content] | None:
    value: Any
    if memory.token_ids is not None:
        form, value, raw = "token_ids", memory.token_ids, memory.token_ids.tobytes()
    elif memory.text is not None:
        form, value, raw = "text", memory.text, _utf8(memory.text)
    elif memory.messages is not None:
        form, value, raw = "messages", memory.messages, _utf8(repr(memory.messages))
    else:
        return None
    digest = blake2b(raw, digest_size=_DIGEST_BYTES, person=form.encode()).digest()
    return digest, _Content(form, value, len(raw))


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
