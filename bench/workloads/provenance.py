"""Where a trace comes from: what a result that rests on one says of it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from types import MappingProxyType
from typing import Final

OASIS: Final = "https://github.com/camel-ai/oasis (Apache-2.0)"
MOONCAKE: Final = "https://github.com/kvcache-ai/Mooncake (Apache-2.0)"
SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "beca878ff53cd33ad745703ba17b624e9ade30ed2684609df0a4d8f52050f906": OASIS,
        "25daaa507dabff147619e453b4f59a1639a9c05320fab6e670304d00dee904a5": OASIS,
        "b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df": MOONCAKE,
        "bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131": MOONCAKE,
        "21c44d15f9bb0b8bd207c06482061679cc5fc003c99422cd913154a738b8d1f8": (
            "https://github.com/x-glacier/GenerativeAgentsCN (Apache-2.0)"
        ),
    }
)


def provenance(path: Path) -> dict[str, str | None]:
    """Return the file's name, its sha256, and the public source of exactly this content, None where none is known."""
    with path.open("rb") as content:
        digest = file_digest(content, "sha256").hexdigest()
    return {"name": path.name, "sha256": digest, "source": SOURCES.get(digest)}
