"""What an engine really holds: as the emulated one has it, or as a real one's own events tell it from their start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from scalesim_adapters.emulator.chain import Chain, published
from scalesim_adapters.emulator.loras import Lora

END = b"\xff" * 8
REPLAY_MS = 5000
DEVICE = ("GPU", None)


class NotTold(Exception):
    """The engine didn't answer, or no longer has the beginning of its events."""


@dataclass(frozen=True, slots=True)
class Truth:
    """`blocks` counts the cached copies of each block by its hash, `children` finds a block by its parent, tokens and
    LoRA. `device` and `host` are LoRAs by place, None where the engine reveals none."""

    block_size: int
    blocks: Mapping[int, int]
    registered: Mapping[str, str]
    device: frozenset[str] | None = None
    host: frozenset[str] | None = None
    children: Mapping[Any, int] = field(default_factory=dict, compare=False)

    @property
    def resident(self) -> int:
        """How many blocks are cached, copies counted."""
        return sum(self.blocks.values())

    def leading(self, tokens: Sequence[int], lora: str | None) -> int:
        """Return how many blocks at the head of a prompt are cached without a hole."""
        count = 0
        for block_hash in self._hashes(tokens, lora):
            if not self.blocks.get(block_hash):
                break
            count += 1
        return count

    def _hashes(self, tokens: Sequence[int], lora: str | None) -> Sequence[int]:
        if self.device is not None:
            known = None if lora is None else Lora(0, lora, self.registered.get(lora, ""))
            return [published(one) for one in Chain(self.block_size, list(tokens), known).hashes]
        hashes: list[int] = []
        parent: int | None = None
        for start in range(0, len(tokens) - self.block_size + 1, self.block_size):
            key = (parent, tuple(tokens[start : start + self.block_size]), lora)
            parent = self.children.get(key)
            if parent is None:
                break
            hashes.append(parent)
        return hashes


def emulated(answer: Mapping[str, Any], block_size: int) -> Truth:
    """Return the truth from the emulated engine's own account of it."""
    return Truth(
        block_size,
        {int(block_hash): copies for block_hash, copies in answer["blocks"].items()},
        answer["registered"],
        frozenset(answer["device"]),
        frozenset(answer["host"]),
    )


async def replayed(replay: Path, block_size: int, registered: Mapping[str, str]) -> Truth:
    """Ask a real engine for all events since its start, and return what is left of them. Raises `NotTold`."""
    blocks: Counter[int] = Counter()
    children: dict[Any, int] = {}
    expected = 0
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as asking:
        asking.setsockopt(zmq.LINGER, 0)
        asking.connect(f"ipc://{replay}")
        await asking.send_multipart([b"", bytes(8)])
        while True:
            if not await asking.poll(REPLAY_MS):
                raise NotTold("no answer to a replay")
            _, _, seq, payload = await asking.recv_multipart()
            if seq == END:
                break
            if int.from_bytes(seq, "big") != expected:
                raise NotTold(f"the events before {int.from_bytes(seq, 'big')} are gone")
            expected += 1
            for event in msgspec.msgpack.decode(payload)[1]:
                _take(event, block_size, blocks, children)
    return Truth(block_size, +blocks, registered, children=children)


def _take(event: Mapping[str, Any], size: int, blocks: Counter[int], children: dict[Any, int]) -> None:
    if event["type"] == "AllBlocksCleared":
        blocks.clear()
    if event.get("medium") not in DEVICE:
        return
    if event["type"] == "BlockRemoved":
        blocks.subtract(event["block_hashes"])
    if event["type"] == "BlockStored":
        parent, tokens = event["parent_block_hash"], event["token_ids"]
        for index, block_hash in enumerate(event["block_hashes"]):
            key = (parent, tuple(tokens[index * size : (index + 1) * size]), event.get("lora_name"))
            children[key] = parent = block_hash
            blocks[block_hash] += 1
