"""Slots: what is published is whole, whatever kills the writer; what belongs to something else is never seen."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_adapters.hostbuf import slots as layout
from scalesim_adapters.hostbuf.segment import Segment
from scalesim_adapters.hostbuf.slots import PAGE, Slots, read_keys

IDENTITY = {"weights": "w1", "dtype": "bfloat16"}
SLOT_BYTES = 10_000
SIZE = 1 << 20


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() + bytes(4)


def content(name: bytes) -> bytes:
    return random.Random(name).randbytes(SLOT_BYTES)


def write(slots: Slots, buffer: mmap.mmap, slot: int, name: bytes) -> None:
    slots.withdraw(slot)
    start = slots.data_offset + slot * slots.stride
    buffer[start : start + SLOT_BYTES] = content(name)
    slots.publish(slot, name)


def read(slots: Slots, buffer: mmap.mmap, slot: int) -> bytes:
    start = slots.data_offset + slot * slots.stride
    return buffer[start : start + SLOT_BYTES]


def test_slots_fill_the_segment_and_start_at_pages() -> None:
    buffer = mmap.mmap(-1, SIZE)
    slots = Slots(buffer, SLOT_BYTES, IDENTITY, "a")
    assert slots.stride == 3 * PAGE
    assert slots.data_offset % PAGE == 0
    assert slots.data_offset + slots.count * slots.stride <= SIZE
    assert slots.data_offset + (slots.count + 1) * slots.stride > SIZE
    assert Slots(mmap.mmap(-1, PAGE), SLOT_BYTES, IDENTITY, "a").count == 0


def test_content_is_found_again_by_the_same_identity_alone() -> None:
    buffer = mmap.mmap(-1, SIZE)
    first = Slots(buffer, SLOT_BYTES, IDENTITY, "a")
    assert not first.kept
    write(first, buffer, 3, key(1))
    write(first, buffer, 5, key(2))
    write(first, buffer, 3, key(3))
    again = Slots(buffer, SLOT_BYTES, IDENTITY, "b")
    assert again.kept
    assert again.keys() == {3: key(3), 5: key(2)}
    assert read(again, buffer, 3) == content(key(3))
    for other in ({**IDENTITY, "weights": "w2"}, {"dtype": "bfloat16"}):
        assert Slots(buffer, SLOT_BYTES, other, "b").keys() == {}
        assert Slots(buffer, SLOT_BYTES, IDENTITY, "b").keys() == {}, "a discard is final"
        write(Slots(buffer, SLOT_BYTES, IDENTITY, "b"), buffer, 0, key(1))
    assert Slots(buffer, 2 * SLOT_BYTES, IDENTITY, "b").keys() == {}


def test_another_boot_of_the_machine_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = mmap.mmap(-1, SIZE)
    write(Slots(buffer, SLOT_BYTES, IDENTITY, "a"), buffer, 0, key(1))
    monkeypatch.setattr(layout, "_BOOT", tmp_path / "missing")
    assert Slots(buffer, SLOT_BYTES, IDENTITY, "a").keys() == {}
    write(Slots(buffer, SLOT_BYTES, IDENTITY, "a"), buffer, 0, key(1))
    assert Slots(buffer, SLOT_BYTES, IDENTITY, "a").keys() == {}


def test_after_a_discard_nothing_new_outlives_the_process() -> None:
    buffer = mmap.mmap(-1, SIZE)
    slots = Slots(buffer, SLOT_BYTES, IDENTITY, "a")
    write(slots, buffer, 0, key(1))
    slots.discard()
    assert slots.keys() == {}
    write(slots, buffer, 1, key(2))
    assert slots.keys() == {1: key(2)}
    assert Slots(buffer, SLOT_BYTES, IDENTITY, "a").keys() == {}


def test_a_reader_sees_what_its_own_writer_has(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "tier", SIZE)
    slots = Slots(segment.buffer, SLOT_BYTES, IDENTITY, "mine")
    write(slots, segment.buffer, 2, key(7))
    assert read_keys(segment.path, "mine") == (slots.count, {2: key(7)})
    with pytest.raises(ValueError, match="somebody else"):
        read_keys(segment.path, "other")
    slots.discard()
    with pytest.raises(ValueError, match="no slots"):
        read_keys(segment.path, "mine")
    segment.close()


def test_an_identity_has_to_fit_into_the_header() -> None:
    with pytest.raises(ValueError, match="takes more than"):
        Slots(mmap.mmap(-1, SIZE), SLOT_BYTES, {"long": "x" * PAGE}, "a")


class Killed(BaseException):
    """Ends a writer in the middle of what it does."""


class Dying(mmap.mmap):
    """Memory whose writer is killed after some number of written bytes."""

    left = 1 << 40

    def __setitem__(self, where: int | slice, what: int | bytes) -> None:
        if isinstance(where, int):
            where, what = slice(where, where + 1), bytes([what])
        assert isinstance(what, bytes)
        done = min(len(what), self.left)
        self.left -= done
        start = where.start or 0
        super().__setitem__(slice(start, start + done), what[:done])
        if done < len(what):
            raise Killed


@settings(max_examples=200, deadline=None)
@given(
    writes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=6),
    left=st.integers(0, 4 * (SLOT_BYTES + 200)),
    discard=st.booleans(),
)
def test_a_writer_killed_at_any_byte_leaves_whole_slots_only(
    writes: list[tuple[int, int]], left: int, discard: bool
) -> None:
    buffer = Dying(-1, 1 << 16)
    slots = Slots(buffer, SLOT_BYTES, IDENTITY, "a")
    for slot in range(4):
        write(slots, buffer, slot, key(100 + slot))
    buffer.left = left
    try:
        for slot, number in writes:
            write(slots, buffer, slot, key(number))
        if discard:
            slots.discard(keep_identity=True)
    except Killed:
        pass
    buffer.left = 1 << 40
    after = Slots(buffer, SLOT_BYTES, IDENTITY, "b")
    for slot, name in after.keys().items():
        assert read(after, buffer, slot) == content(name)


FOREVER = """
import sys
from pathlib import Path
from tests.adapters.test_hostbuf_slots import IDENTITY, SLOT_BYTES, SIZE, Segment, Slots, key, write
segment = Segment(Path(sys.argv[1]), SIZE)
slots = Slots(segment.buffer, SLOT_BYTES, IDENTITY, "child")
number = 0
while True:
    write(slots, segment.buffer, number % 8, key(number % 50))
    number += 1
    if number == 20:
        print("writing", flush=True)
"""


def test_a_real_process_killed_while_it_writes_leaves_whole_slots_only(tmp_path: Path) -> None:
    path = tmp_path / "tier"
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", FOREVER, str(path)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"writing\n"
            os.kill(child.pid, signal.SIGKILL)
        segment = Segment(path, SIZE)
        slots = Slots(segment.buffer, SLOT_BYTES, IDENTITY, "parent")
        found = slots.keys()
        assert len(found) >= 7
        for slot, name in found.items():
            assert read(slots, segment.buffer, slot) == content(name)
        segment.close()
