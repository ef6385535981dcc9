"""Slots of equal size in a segment, each holding the data of one key or nothing.

Layout: a header of one page, a table with a record of 64 bytes per slot, the data. The header says to what the data
belongs (weights, layout, ...) and during which boot of the machine it was written; where anything differs the content
is discarded. A writer withdraws a slot before it touches the data and publishes it when all data is there. Since the
memory stays coherent as long as the kernel lives, a writer that is killed at any point leaves a slot that is either
whole or empty.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path

from scalesim_adapters.hostbuf.segment import MAGIC

FORMAT = 1
PAGE = 4096
RECORD = 64
HOLDER = 64
LONGEST_KEY = 58

_HEADER = struct.Struct("<8sIII")  # magic, format, length and CRC of the JSON text that follows
LONGEST_TEXT = PAGE - HOLDER - _HEADER.size
_CRC = struct.Struct("<I")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Slots:
    """The slots of a mapped segment.

    `identity` says to what the content belongs, as names and values that are compared; `slot_bytes` is the size of
    the data of a slot, which starts at a page; `holder` names who writes from now on, for its readers. `kept` tells
    whether the content of an earlier process is used.
    """

    def __init__(self, buffer: mmap.mmap, slot_bytes: int, identity: Mapping[str, str], holder: str) -> None:
        self._buffer = buffer
        self.stride = _pages(slot_bytes)
        self.count = _fitting(len(buffer), self.stride)
        self.data_offset = PAGE + _pages(self.count * RECORD)
        self._text = _describe(identity, self.count, self.stride)
        self.kept = _read_header(buffer) == self._text
        if not self.kept:
            self.discard(keep_identity=True)
        buffer[PAGE - HOLDER : PAGE] = _holder(holder)

    def keys(self) -> dict[int, bytes]:
        """Return the key of every slot that holds one."""
        return _read_records(self._buffer, self.count)

    def withdraw(self, slot: int) -> None:
        """Empty a slot: its data may change from here on."""
        self._buffer[PAGE + slot * RECORD] = 0

    def publish(self, slot: int, key: bytes) -> None:
        """Say that a slot, withdrawn before, holds the whole data of `key`, which has at most 58 bytes."""
        start = PAGE + slot * RECORD
        body = bytes([len(key)]) + key.ljust(LONGEST_KEY, b"\0")
        self._buffer[start + 1 : start + RECORD] = body + _CRC.pack(zlib.crc32(body))
        self._buffer[start] = 1

    def discard(self, *, keep_identity: bool = False) -> None:
        """Empty all slots. Without `keep_identity` no later process uses what is stored from now on."""
        self._buffer[: _HEADER.size] = bytes(_HEADER.size)
        self._buffer[PAGE : PAGE + self.count * RECORD] = bytes(self.count * RECORD)
        if keep_identity:
            _write_header(self._buffer, self._text)


def read_keys(path: Path, holder: str) -> tuple[int, dict[int, bytes]]:
    """Return the number of slots of the segment at `path`, and the key of each that holds one.

    Raises `ValueError` where it has no slots of this format or another holder, `OSError` where it can't be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        if buffer[PAGE - HOLDER : PAGE] != _holder(holder):
            raise ValueError(f"{path} is held by somebody else")
        text = _read_header(buffer)
        if text is None:
            raise ValueError(f"{path} has no slots of format {FORMAT}")
        count = int(json.loads(text)["slots"])
        return count, _read_records(buffer, count)


def _holder(name: str) -> bytes:
    return hashlib.sha512(name.encode()).digest()


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _fitting(size: int, stride: int) -> int:
    count = max(0, (size - PAGE) // (stride + RECORD))
    while count and PAGE + _pages(count * RECORD) + count * stride > size:
        count -= 1
    return count


def _describe(identity: Mapping[str, str], slots: int, stride: int) -> bytes:
    """Return the header's text."""
    text = json.dumps(
        {"boot": _boot(), "slots": slots, "stride": stride, "identity": dict(identity)}, sort_keys=True
    )
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"the identity takes more than {LONGEST_TEXT} bytes: {text[:200]}")
    return text.encode()


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return uuid.uuid4().hex


def _read_header(buffer: mmap.mmap) -> bytes | None:
    magic, version, length, crc = _HEADER.unpack_from(buffer)
    text = buffer[_HEADER.size : _HEADER.size + length] if length <= LONGEST_TEXT else b""
    return text if (magic, version, crc) == (MAGIC, FORMAT, zlib.crc32(text)) else None


def _write_header(buffer: mmap.mmap, text: bytes) -> None:
    buffer[_HEADER.size : _HEADER.size + len(text)] = text
    buffer[: _HEADER.size] = _HEADER.pack(MAGIC, FORMAT, len(text), zlib.crc32(text))


def _read_records(buffer: mmap.mmap, count: int) -> dict[int, bytes]:
    table = buffer[PAGE : PAGE + count * RECORD]
    keys = {}
    for slot in range(count):
        state, record = table[slot * RECORD], table[slot * RECORD + 1 : (slot + 1) * RECORD]
        body, (crc,) = record[: -_CRC.size], _CRC.unpack(record[-_CRC.size :])
        if state == 1 and zlib.crc32(body) == crc:
            keys[slot] = body[1 : 1 + body[0]]
    return keys
