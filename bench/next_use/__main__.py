"""`python -m bench.next_use`: what the device's cache serves of the prompts where vLLM's plug-in is told the estimated
dues, compared with where it is told the recorded next use of every agent.

The same calls, in the same order and one after the other, are played with pools for 6, 3 and 2 of 12 agents. Nothing is
prefetched. The last line is JSON.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from bench.next_use.engine import Share
from bench.next_use.measure import CLASSES, Class, Shares, Variant, measure, record
from bench.next_use.report import draw, print_result


def main() -> None:
    """Measure with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.next_use", description=__doc__)
    parser.add_argument("--pools", type=int, nargs="+", default=[6, 3, 2], help="agents that a pool holds")
    parser.add_argument("--classes", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--steps", type=int, default=60, help="length of each simulation")
    parser.add_argument("--seed", type=int, default=1, help="of all simulations")
    parser.add_argument("--plot", type=Path, default=Path("out/next-use.png"), help="where the plot goes")
    given = parser.parse_args()
    recordings = {name: record(name, given.seed, given.steps) for name in given.classes}
    shares: dict[int, Shares] = {}
    for pool in given.pools:
        began = time.monotonic()

        def done(name: Class, variant: Variant, share: Share, pool: int = pool, began: float = began) -> None:
            print(
                f"pool for {pool}, {name}, {variant}: {share.cached:.3f} ({time.monotonic() - began:.0f} s)",
                file=sys.stderr,
            )

        with tempfile.TemporaryDirectory(prefix="next-use-") as folder:
            shares[pool] = measure(Path(folder), pool, recordings, done)
    draw(shares, given.plot)
    print_result(recordings, shares, given.seed, given.plot)


if __name__ == "__main__":
    main()
