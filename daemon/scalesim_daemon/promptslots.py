"""Whose prompts are in the slots of an engine that doesn't tell: an account of what was sent there and heard of. Pure.

A slot holds the KV of one prompt, whole. A request takes, of the idle slots, the one whose prompt has most in common
with its own, where that is more than a tenth of it, else the one used longest ago: llama.cpp's rule
(`adapters/scalesim_adapters/openai/llamacpp.py`), which engines of this kind have or come close to. What was in the
slots before the first request that is known of counts as nobody's, and so does what requests that nobody announced
leave there, as far as the engine shows that there were some.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from scalesim_daemon.blocks import Namespace
from scalesim_daemon.eviction import NOBODY, Group

SIMILAR = 0.1
"""The share of a prompt that makes a slot its own: the default of `--slot-prompt-similarity`."""
LETTERS_PER_TOKEN = 4
"""How many letters of English text make a token, about: for prefixes whose tokens aren't known."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of an agent's prompts in one of three forms, under `(LoRA name, cache salt)`."""

    namespace: Namespace
    token_ids: array[int] | None = None
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None

    @property
    def length(self) -> int:
        """Its length in tokens, estimated where they aren't known."""
        if self.token_ids is not None:
            return len(self.token_ids)
        letters = len(self.text or "") + sum(len(str(said.get("content"))) for said in self.messages or ())
        return math.ceil(letters / LETTERS_PER_TOKEN)

    def similarity(self, other: Prefix) -> float:
        """Return which share of this one the other begins with."""
        mine, its = self._content(), other._content()
        if self.namespace != other.namespace or type(mine) is not type(its) or not mine:
            return 0.0
        return common(mine, its) / len(mine)

    def _content(self) -> Sequence[Any]:
        return next((part for part in (self.token_ids, self.text, self.messages) if part is not None), ())


def common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return how many elements two sequences begin with alike, by halving: equal slices are compared at once."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(slots=True)
class _Slot:
    """`agent` is whose prompt it holds, None for nobody known, and `size` how many tokens of the prefix. `used` grows
    with each use, 0 before the first. `number` is what the engine told last, `busy` whether it was used since."""

    agent: str | None = None
    size: float = 0
    used: int = 0
    held: bool = False
    number: int | None = None
    busy: bool = False


class PromptSlots:
    """One engine's `count` slots. Like a `BlockTree` of which every prefix takes one block, whatever its length."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.unpredicted = 0
        self._slots = [_Slot() for _ in range(count)]
        self._prefixes: dict[str, Prefix] = {}
        self._serving: dict[str, list[_Slot]] = {}
        self._waiting: deque[str] = deque()
        self._uses = 0

    # Whose memory it is

    def declare(self, agent: str, prefix: Prefix) -> None:
        """Set an agent's prefix."""
        if self._prefixes.get(agent) != prefix:
            self.forget(agent)
            self._prefixes[agent] = prefix

    def forget(self, agent: str) -> None:
        """Drop what is known of an agent's prefix."""
        self._prefixes.pop(agent, None)
        for slot in self._slots:
            if slot.agent == agent:
                slot.agent = None

    # What happens

    def cleared(self) -> None:
        """The engine restarted: nothing is there any more; prefixes stay known."""
        self._slots = [_Slot() for _ in range(self.count)]
        self._serving.clear()
        self._waiting.clear()

    def started(self, agent: str, index: int | None = None) -> None:
        """A request of the agent is on its way, to the slot of this index or the one that the engine chooses."""
        index = self._choice(agent) if index is None else index
        if index is None:
            self._waiting.append(agent)
            return
        slot = self._slots[index]
        if slot.agent != agent:
            slot.agent, slot.size = agent, 0
        slot.held = slot.busy = True
        self._serving.setdefault(agent, []).append(slot)

    def released(self, agent: str, size: float = math.inf) -> int:
        """A request of the agent has ended and left so many tokens of its prefix there. Return how much it leaves
        beyond a prefix: nothing, the slot is its own."""
        slots = self._serving.get(agent)
        if not slots:
            if agent in self._waiting:
                self._waiting.remove(agent)
            return 0
        slot = slots.pop(0)
        if not slots:
            del self._serving[agent]
        self._uses += 1
        slot.size, slot.used, slot.held = size, self._uses, False
        if self._waiting:
            self.started(self._waiting.popleft())
        return 0

    def told(self, numbers: Sequence[int]) -> None:
        """The engine told a number of each slot, which changes with every request there and is negative where it holds
        nothing. What is in a slot that was used by nobody known isn't known any more; one that was used in place of
        another takes its prompt along."""
        if len(numbers) != self.count:
            return
        strangers: list[_Slot] = []
        missed: list[_Slot] = []
        for slot, number in zip(self._slots, numbers, strict=True):
            if slot.held:
                continue
            if slot.busy and number == slot.number:
                missed.append(slot)
            elif number < 0:
                self.unpredicted += self._whole(slot)
                slot.agent, slot.used = None, 0
            elif not slot.busy and slot.number not in (None, number):
                strangers.append(slot)
            slot.number, slot.busy = number, False
        self.unpredicted += len(strangers)
        moved = [(slot.agent, slot.size) for slot in missed]
        for slot in missed:
            slot.agent = None
            if slot.number is not None and slot.number < 0:
                slot.used = 0
        for slot in strangers:
            self._uses += 1
            slot.agent, slot.size = moved[0] if len(moved) == len(strangers) == 1 else (None, 0)
            slot.used = self._uses

    # What one asks

    @property
    def block_size(self) -> int:
        """What a prefix is long, on average, in tokens."""
        lengths = [prefix.length for prefix in self._prefixes.values()]
        return max(1, sum(lengths) // len(lengths)) if lengths else 1

    @property
    def resident(self) -> int:
        """How many slots hold something."""
        return sum(slot.held or slot.used > 0 for slot in self._slots)

    def prefix(self, agent: str) -> Prefix | None:
        """Return an agent's prefix, where it is known."""
        return self._prefixes.get(agent)

    def prefix_blocks(self, agent: str) -> int:
        """Return 1 where the agent's prefix is known, else 0."""
        return int(agent in self._prefixes)

    def prefix_tokens(self, agent: str) -> int:
        """Return the length of the agent's prefix in tokens, 0 where it isn't known."""
        prefix = self._prefixes.get(agent)
        return 0 if prefix is None else prefix.length

    def resident_blocks(self, agent: str) -> int:
        """Return 1 where a slot holds all of the agent's prefix, else 0."""
        return int(any(slot.agent == agent and self._whole(slot) for slot in self._slots))

    def resident_tokens(self, agent: str) -> int:
        """Return how many tokens of the agent's prefix the slots hold."""
        prefix = self._prefixes.get(agent)
        held = max((slot.size for slot in self._slots if slot.agent == agent), default=0)
        return 0 if prefix is None else int(min(held, prefix.length))

    def agents(self) -> Iterator[str]:
        """Yield the agents whose prefix is known."""
        return iter(self._prefixes)

    def take_changed(self) -> Set[str] | None:
        """Return None: any agent's prefix may have come or gone, as far as is known."""
        return None

    def groups(self) -> Iterator[Group]:
        """Yield the prompts that no request uses, the one used longest ago first. One that is cut short is missed by
        nobody: its agent's next request goes there."""
        for slot in sorted(self._slots, key=lambda slot: slot.used):
            if slot.used and not slot.held:
                yield Group({slot.agent} if slot.agent is not None and self._whole(slot) else NOBODY, 1)

    def place(self, agent: str, victims: Set[str], *, ours: bool) -> int | None:
        """Return the slot for a prefix that may displace `victims` and what is nobody's; None where there is none now.
        Where the choice isn't `ours`, it is the engine's."""
        if not ours:
            index = self._choice(agent)
            return index if index is not None and self._may_go(self._slots[index], agent, victims) else None
        able = [
            index
            for index, slot in enumerate(self._slots)
            if not slot.held and self._may_go(slot, agent, victims)
        ]
        return min(able, key=lambda index: self._worth(self._slots[index], agent), default=None)

    # Inside

    def _whole(self, slot: _Slot) -> bool:
        prefix = self._prefixes.get(slot.agent) if slot.agent is not None else None
        return prefix is not None and slot.size >= prefix.length

    def _may_go(self, slot: _Slot, agent: str, victims: Set[str]) -> bool:
        return slot.agent in (agent, None) or slot.agent in victims or not self._whole(slot)

    def _worth(self, slot: _Slot, agent: str) -> tuple[bool, bool, int]:
        """Order slots to take: the agent's own, then what nobody misses, then by age."""
        return slot.agent != agent, self._whole(slot), slot.used

    def _choice(self, agent: str) -> int | None:
        """Return which slot the engine takes for a request of the agent; None while all are in use."""
        idle = [index for index, slot in enumerate(self._slots) if not slot.held]
        if not idle:
            return None
        likeness = {index: self._likeness(agent, self._slots[index]) for index in idle}
        best = max(idle, key=lambda index: likeness[index])
        if likeness[best] > SIMILAR:
            return best
        # Of several that were never used the last one is taken.
        return min(idle, key=lambda index: (self._slots[index].used, -index))

    def _likeness(self, agent: str, slot: _Slot) -> float:
        """Return the share of the agent's prompt that the slot's begins with, as far as prefixes tell."""
        mine = self._prefixes.get(agent)
        its = self._prefixes.get(slot.agent) if slot.agent is not None else None
        if mine is None or its is None:
            return float(slot.agent == agent)
        shared = mine.similarity(its)
        return min(shared, slot.size / mine.length) if mine.length else 0.0
