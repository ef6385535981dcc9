"""`python -m bench.gpu`: measure the host buffers on the first CUDA device; the last line is JSON.

A figure's name ends in its unit: GiB a second, seconds, GiB; the others are ratios. What can't be measured here is
named with its reason, which is no failure.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from typing import Final

from rich.console import Console
from rich.table import Table

from scalesim_adapters.hostbuf.segment import SegmentError

MEASUREMENTS: Final = ("bandwidth", "handover", "overlap")
INSTALL: Final = "isn't installed: .venv/bin/pip install '.[gpu]'"

Figures = dict[str, float]


def missing() -> dict[str, str]:
    """Return the measurements that can't be made here, each with the reason."""
    if importlib.util.find_spec("torch") is None:
        return dict.fromkeys(MEASUREMENTS, f"torch {INSTALL}")
    import torch

    if not torch.cuda.is_available():
        return dict.fromkeys(MEASUREMENTS, "torch finds no CUDA device")
    return {} if importlib.util.find_spec("cupy") else {"handover": f"cupy {INSTALL}"}


def main() -> None:
    """Measure with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the buffers")
    size = parser.parse_args().mib << 20
    skipped = missing()
    device: str | None = None
    figures: dict[str, Figures] = {}
    if len(skipped) < len(MEASUREMENTS):
        try:
            device, figures = _measure(size, handed_over="handover" not in skipped)
        except SegmentError as error:
            sys.exit(f"bench.gpu: {error.strerror}")
    _print(device, figures, skipped)
    print(json.dumps({"bench": "gpu", "device": device, "bytes": size, "skipped": skipped, **figures}))


def _measure(size: int, handed_over: bool) -> tuple[str, dict[str, Figures]]:
    import torch

    from bench.gpu import handover, transfer

    with transfer.host_buffer(size) as buffer:
        figures = {"bandwidth": transfer.bandwidth(buffer), "overlap": transfer.overlap(buffer)}
    if handed_over:
        figures["handover"] = handover.handover()
    return torch.cuda.get_device_name(), figures


def _print(device: str | None, figures: dict[str, Figures], skipped: dict[str, str]) -> None:
    table = Table(title=f"host buffers on {device or 'no CUDA device'}")
    table.add_column("measurement")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name in MEASUREMENTS:
        for figure, value in figures.get(name, {}).items():
            table.add_row(name, figure.replace("_", " "), f"{value:,.3g}")
    console = Console(file=sys.stdout)
    if figures:
        console.print(table)
    for name, why in skipped.items():
        print(f"skipped: {name}: {why}")


if __name__ == "__main__":
    main()
