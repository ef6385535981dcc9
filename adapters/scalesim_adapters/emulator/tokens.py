"""Text to tokens and back, one token per byte of UTF-8, and output tokens that depend on the prompt alone."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

FIRST_BYTE = 3
"""The token of byte 0; lower tokens are special in real vocabularies."""

OUTPUT = b"abcdefghijklmnopqrstuvwxyz ,."


def encode(text: str) -> list[int]:
    """Return the tokens of a text."""
    return [byte + FIRST_BYTE for byte in text.encode()]


def decode(tokens: Sequence[int]) -> str:
    """Return the text of tokens; those that stand for no byte are left out."""
    return bytes(token - FIRST_BYTE for token in tokens if 0 <= token - FIRST_BYTE < 256).decode(
        errors="replace"
    )


def render_chat(messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
    """Return the prompt of a conversation. Content is a text or a list of parts with a `text`."""
    turns = [f"<{message['role']}>\n{_text(message.get('content'))}\n" for message in messages]
    return "".join(turns) + ("<assistant>\n" if add_generation_prompt else "")


def seed_of(prompt: Sequence[int], lora_name: str | None) -> bytes:
    """Return what the outputs of a prompt under a LoRA depend on."""
    digest = hashlib.sha256(array("Q", prompt).tobytes())
    digest.update((lora_name or "").encode())
    return digest.digest()


def output_token(seed: bytes, index: int) -> int:
    """Return the output token at `index`."""
    drawn = hashlib.sha256(seed + index.to_bytes(4, "big")).digest()[0]
    return OUTPUT[drawn % len(OUTPUT)] + FIRST_BYTE


def _text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type", "text") == "text")
