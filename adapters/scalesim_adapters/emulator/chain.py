"""The tokens of one request as a chain of blocks, each known by the hash of all that precedes it.

The hash is vLLM 0.32's default (`--prefix-caching-hash-algo sha256`, PYTHONHASHSEED unset): SHA-256 over the
pickle of (hash of the parent, tokens, extra keys); events carry its low 64 bits.
"""

from __future__ import annotations

import hashlib
import pickle  # nosec B403  # written, to be hashed as vLLM does, and never read
from dataclasses import dataclass, field

from scalesim_adapters.emulator.events import MEDIUM, BlockStored
from scalesim_adapters.emulator.loras import Lora


def _sha256(value: object) -> bytes:
    return hashlib.sha256(pickle.dumps(value, protocol=5)).digest()


ROOT = _sha256("vllm-none-hash")
"""The parent of every first block."""


def published(block_hash: bytes) -> int:
    """Return a block hash as events carry it."""
    return int.from_bytes(block_hash[-8:], "big")


@dataclass(slots=True)
class Chain:
    """Tokens, the hashes of their full blocks, and what else decides whether KV may be shared.

    `session` names the request's agent in events; it is no part of the hash.
    """

    block_size: int
    tokens: list[int]
    lora: Lora | None = None
    cache_salt: str | None = None
    session: str | None = None
    hashes: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = list(self.tokens)
        self._hash_full_blocks()

    def append(self, token: int) -> None:
        """Add an output token."""
        self.tokens.append(token)
        self._hash_full_blocks()

    def stored_event(self, first: int, last: int) -> BlockStored:
        """Describe blocks `first` to `last` (exclusive) as just stored."""
        size = self.block_size
        return BlockStored(
            block_hashes=[published(block_hash) for block_hash in self.hashes[first:last]],
            parent_block_hash=published(self.hashes[first - 1]) if first else None,
            token_ids=self.tokens[first * size : last * size],
            block_size=size,
            lora_id=self.lora.id if self.lora else None,
            medium=MEDIUM,
            lora_name=self.lora.name if self.lora else None,
            extra_keys=[[key[1] for key in self._extra_keys(block)] or None for block in range(first, last)],
            group_idx=0,
            kv_cache_spec_kind="full_attention",
            session_id=self.session,
        )

    def _hash_full_blocks(self) -> None:
        size = self.block_size
        for block in range(len(self.hashes), len(self.tokens) // size):
            parent = self.hashes[-1] if self.hashes else ROOT
            tokens = tuple(self.tokens[block * size : (block + 1) * size])
            self.hashes.append(_sha256((parent, tokens, self._extra_keys(block) or None)))

    def _extra_keys(self, block: int) -> tuple[tuple[str, ...], ...]:
        lora = (("lora", self.lora.name, self.lora.path),) if self.lora else ()
        salt = (("cache_salt", self.cache_salt),) if block == 0 and self.cache_salt else ()
        return lora + salt
