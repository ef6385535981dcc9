"""What is on record of the links to LoRAs: which folder each was made for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One link: to the LoRA of this name, of so many `bytes`, that lies in `original`."""

    name: str
    link: Path
    original: Path
    bytes: int


class Records:
    """A file beside the links for each of them. All methods raise `OSError`."""

    def __init__(self, links: Path, work: Path) -> None:
        self.folder = links / ".originals"
        self._links = links
        self._work = work

    def write(self, entry: Entry) -> None:
        """Keep an entry; at every moment its record is whole, or as it was."""
        fresh = self._work / f"{entry.link.name}.json"
        with fresh.open("w", encoding="utf-8") as file:
            json.dump({"name": entry.name, "original": str(entry.original), "bytes": entry.bytes}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.folder / fresh.name)

    def drop(self, entry: Entry) -> None:
        """Keep it no longer."""
        (self.folder / f"{entry.link.name}.json").unlink(missing_ok=True)

    def read(self) -> Iterator[Entry]:
        """Yield all entries in the order in which they were written; what can't be read is logged and left out."""
        for path in sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                original, size = Path(str(record["original"])), int(record["bytes"])
                yield Entry(str(record["name"]), self._links / path.stem, original, size)
            except (ValueError, KeyError, TypeError) as error:
                log.warning("record of a LoRA's original is unreadable", path=str(path), error=str(error))
