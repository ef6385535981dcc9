"""What agents' memory weighs where it isn't all alike: drawn sizes, and the seconds that a miss costs.

Prefixes have 256 to 8,192 tokens, log-uniform: as many between 256 and 512 as between 4,096 and 8,192. KV of a token is
57,344 bytes and is computed at 32,400 tokens/s (`scalesim_daemon.whatif.costs.H100_QWEN_7B`); attention adds 2 x 28
layers x 3,584 x tokens^2 operations (Qwen2.5-7B's config.json, causal) at half of the 989 TFLOPS of an H100.

LoRAs have rank 8, 16, 32 or 64, each as likely. One of rank 16 on all linear layers of Qwen2.5-7B has 40.4 million
parameters in bfloat16; they are read at an assumed 3 GB/s, after an assumed 15 ms for opening and checking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from scalesim_daemon.whatif.costs import H100_QWEN_7B

TOKENS = (256, 8192)
ATTENTION_SECONDS = 2 * 28 * 3584 / (0.5 * 989e12)
RANKS = (8, 16, 32, 64)
RANK_BYTES = 40_370_176 // 16 * 2
DISK_BYTES_PER_SECOND = 3e9
OPENING_SECONDS = 0.015
LORAS_AMONG_ALL = 0.2


class Item(NamedTuple):
    """One agent's memory: its size in bytes, and the seconds that a miss costs."""

    size: int
    seconds: float


def prefix(rng: Random) -> Item:
    """Draw the KV of a prompt prefix."""
    shortest, longest = TOKENS
    tokens = round(shortest * (longest / shortest) ** rng.random())
    assert H100_QWEN_7B.kv_bytes_per_token is not None
    seconds = tokens * H100_QWEN_7B.prefill_token_seconds + ATTENTION_SECONDS * tokens**2
    return Item(tokens * H100_QWEN_7B.kv_bytes_per_token, seconds)


def lora(rng: Random) -> Item:
    """Draw a LoRA's files."""
    size = rng.choice(RANKS) * RANK_BYTES
    return Item(size, OPENING_SECONDS + size / DISK_BYTES_PER_SECOND)


def either(rng: Random) -> Item:
    """Draw a LoRA for one agent in five, a prefix for the others."""
    return lora(rng) if rng.random() < LORAS_AMONG_ALL else prefix(rng)


KINDS: Mapping[str, Callable[[Random], Item]] = MappingProxyType(
    {"prefixes": prefix, "LoRAs": lora, "both kinds": either}
)


def drawn(kind: str, agents: Sequence[str], seed: int) -> dict[str, Item]:
    """Return each agent's item."""
    rng = Random(f"{kind} {seed}")
    return {agent: KINDS[kind](rng) for agent in agents}
