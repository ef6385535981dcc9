"""From host memory to the device: a host buffer against pinned memory in the same rounds, and beside matrix products.

The engine's side: torch registers the buffer for DMA.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

from scalesim_adapters.hostbuf.segment import Segment

SHARED: Final = "/dev/shm"
ROUNDS: Final = 15
PAGE: Final = 64 << 10  # of one layer and block: 16 tokens of 8 heads of 128 values of 2 bytes, key and value
SIDE: Final = 4096  # of the multiplied matrices

Copy = Callable[[], object]


def bandwidth(buffer: torch.Tensor) -> dict[str, float]:
    """Copy a registered buffer, as much pinned memory, and the buffer page by page as the host tier does, in turns;
    return the medians in GiB/s, and the buffer's over pinned memory's."""
    size = buffer.nbytes
    pinned = torch.empty(size, dtype=torch.int8, pin_memory=True)
    pinned.copy_(buffer)
    target = torch.empty(size, dtype=torch.int8, device="cuda")
    pages = list(zip(target.split(PAGE), buffer.split(PAGE), strict=True))

    def by_pages() -> None:
        for there, here in pages:
            there.copy_(here, non_blocking=True)

    whole, plain, paged = in_turns(
        lambda: target.copy_(buffer, non_blocking=True),
        lambda: target.copy_(pinned, non_blocking=True),
        by_pages,
    )
    if not torch.equal(target.cpu(), pinned):
        raise RuntimeError("the device got other bytes than the buffer has")
    return {
        "buffer_gib_s": gib(size) / whole,
        "pinned_gib_s": gib(size) / plain,
        "buffer_by_pages_gib_s": gib(size) / paged,
        "buffer_over_pinned": plain / whole,
    }


def overlap(buffer: torch.Tensor) -> dict[str, float]:
    """Copy a registered buffer while matrices are multiplied that take about as long; return each time in seconds, how
    much longer the products took than alone, and what share of the shorter one was hidden."""
    target = torch.empty_like(buffer, device="cuda")
    left, right = (torch.randn(SIDE, SIDE, dtype=torch.float16, device="cuda") for _ in range(2))
    out, beside = torch.empty_like(left), torch.cuda.Stream()
    multiplied: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def copy() -> None:
        target.copy_(buffer, non_blocking=True)

    once, copying = in_turns(lambda: torch.mm(left, right, out=out), copy)
    count = max(1, round(copying / once))

    def multiply() -> None:
        for _ in range(count):
            torch.mm(left, right, out=out)

    def both() -> None:
        now, start, end = torch.cuda.current_stream(), _event(), _event()
        beside.wait_stream(now)
        with torch.cuda.stream(beside):
            copy()
        start.record()
        multiply()
        end.record()
        now.wait_stream(beside)
        multiplied.append((start, end))

    alone, copying, together = in_turns(multiply, copy, both)
    slowed = median(start.elapsed_time(end) / 1000 for start, end in multiplied[1:])
    return {
        "copy_s": copying,
        "products_s": alone,
        "together_s": together,
        "products_beside_over_alone": slowed / alone,
        "hidden": (alone + copying - together) / min(alone, copying),
    }


def in_turns(*works: Copy) -> list[float]:
    """Run each work in every round and return their median times in seconds, by the device's own clock."""
    times: list[list[float]] = [[] for _ in works]
    for number in range(ROUNDS + 1):
        for work, taken in zip(works, times, strict=True):
            start, end = _event(), _event()
            torch.cuda.synchronize()
            start.record()
            work()
            end.record()
            end.synchronize()
            if number:  # the first round warms up
                taken.append(start.elapsed_time(end) / 1000)
    return [median(taken) for taken in times]


def gib(size: int) -> float:
    """Return bytes in GiB."""
    return size / (1 << 30)


@contextmanager
def host_buffer(size: int) -> Iterator[torch.Tensor]:
    """Make a host buffer with random bytes in shared memory, register it for DMA, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="scalesim-bench-", dir=SHARED) as folder:
        segment = Segment(Path(folder) / "buffer", size)
        tensor = torch.frombuffer(segment.buffer, dtype=torch.int8)
        tensor.random_()
        _check(torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), size, 0))
        try:
            yield tensor
        finally:
            torch.cuda.synchronize()
            _check(torch.cuda.cudart().cudaHostUnregister(tensor.data_ptr()))


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def _check(result: Any) -> None:
    torch.cuda.check_error(int(result))
