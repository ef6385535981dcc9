"""`python -m bench.demo`: show on this machine what the sidecar changes. See `make demo` in the README."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from bench.demo.experiment import Options
from bench.demo.loras import run_loras
from bench.demo.programme import run_demo
from bench.demo.report import draw, print_result
from bench.workloads.base import Workload
from bench.workloads.recorded import recorded
from bench.workloads.village import Village


def main() -> None:
    """Run the demo with the flags of the command line."""
    given = _parser().parse_args()
    workload, title = _workload(given)
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        options = Options(workload, title, given.engine, given.pace, Path(folder), given.trace)
        result = asyncio.run(run_demo(options))
        lora_folder = Path(folder) / "loras"
        lora_folder.mkdir()
        loras = asyncio.run(run_loras(given.engine, lora_folder))
    draw(result, given.plot)
    print_result(result, loras, given.plot)


def _workload(given: argparse.Namespace) -> tuple[Workload, str]:
    if given.trace is None:
        return Village(given.seed, given.steps or 26), f"village, seed {given.seed}"
    return recorded(given.trace, given.steps), given.trace.name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description=__doc__)
    parser.add_argument(
        "--engine", choices=("vllm", "emulator"), default="vllm", help="a real vLLM or an emulated one"
    )
    parser.add_argument(
        "--steps", type=int, help="steps to play (default: 26, the busiest part of a day, or 12 of a cascade)"
    )
    parser.add_argument("--seed", type=int, default=1, help="the village to play")
    parser.add_argument("--pace", type=float, help="seconds a step takes the simulation (default: measured)")
    parser.add_argument(
        "--trace",
        type=Path,
        help="what to play instead of the village: a GenerativeAgentsCN report (.md) or OASIS accounts (.csv)",
    )
    parser.add_argument("--plot", type=Path, default=Path("out/demo.png"), help="where the plot goes")
    return parser


if __name__ == "__main__":
    main()
