"""Print, per workload, the share of pairs of calls that estimates order right, beside recency's.

`told` is the blend of what simulations tell with every estimator heard, `blend` the same as the daemon runs it, where
estimators are judged. `untold` hears nothing but calls.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.estimates.cycles import Cycles
from bench.workloads.base import Workload
from bench.workloads.trace import Trace
from bench.workloads.village import Village
from scalesim_client.events import Event, InvocationStarted
from scalesim_estimators import Blend, Figures, HistoryEstimator, Quality, default_estimators

WHOLE_RUN = 1_000_000
EVERYBODY = 1_000_000
SAID = ("blend", "nothing")


def main() -> None:
    """Play the workloads and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.estimates", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=26)
    parser.add_argument("--trace", type=Path, help="a recorded day of generative agents")
    parser.add_argument("--figures", action="store_true", help="print each estimator's figures too")
    args = parser.parse_args()
    workloads: list[tuple[str, Workload]] = [
        (f"village {seed}, {args.steps} steps", Village(seed, args.steps)) for seed in args.seeds
    ]
    workloads += [(f"village {seed}, 200 steps", Village(seed, 200)) for seed in args.seeds[:1]]
    workloads += [(f"cycles, {jitter:.0%} late", Cycles(1, 200, jitter=jitter)) for jitter in (0.0, 0.2)]
    if args.trace is not None:
        workloads += [
            ("recorded day, 24 steps", Trace(args.trace)),
            ("recorded day, 120 steps", Trace(args.trace, 120)),
        ]
    print(
        f"{'workload':24}{'pairs':>8}{'recency':>9}{'told':>9}{'blend':>9}{'untold':>9}  not heard at the end"
    )
    for name, workload in workloads:
        heard, alone = default_estimators(), default_estimators()
        runs = play(workload, everyone_heard()), play(workload, heard), play(workload, alone, untold=True)
        shares = (runs[0].recency_accuracy, *(run.order_accuracy for run in runs))
        out = [
            estimator.name for estimator in heard.estimators if not heard.quality.is_admitted(estimator.name)
        ]
        print(f"{name:24}{runs[0].pairs:8}", *(f"{share:8.3f}" for share in shares), "", *out)
        if args.figures:
            show(heard)
            show(alone)


def everyone_heard() -> Blend:
    """Return a blend that judges nobody: what is told is always heard."""
    fresh = default_estimators()
    told = fresh.estimators[:-1]
    names = [estimator.name for estimator in fresh.estimators]
    return Blend(told, HistoryEstimator(), Quality(names, always=names))


def play(workload: Workload, blend: Blend, *, untold: bool = False) -> Figures:
    """Play the workload to the blend and return the pairs of the whole run, by what the blend said at each time."""
    whole = Quality(SAID, always=SAID, window=WHOLE_RUN)

    def renew(agents: Iterable[str], now: float) -> None:
        named = list(agents)
        held = [
            None if one is None or one.due < now - 1.0 else one for one in blend.renew(named, now, now - 1.0)
        ]
        whole.estimated(named, [(0, held)], now)

    def say(events: Sequence[Event], now: float) -> None:
        for event in events:
            if not untold or isinstance(event, InvocationStarted):
                renew(blend.observe(event, now), now)
        while blend.behind(-math.inf):
            renew(blend.go_on(-math.inf, EVERYBODY), now)

    say(workload.opening, 0.0)
    for step in workload.steps():
        now = float(step.now)
        renew(blend.lapsed(now - 1.0), now)
        say(step.before, now)
        for call in step.calls:
            whole.invoked(call.agent, now, 1.0)
            blend.quality.invoked(call.agent, now, 1.0)
            renew(blend.quality.differing(), now)
            say([InvocationStarted(agent=call.agent)], now)
        say(step.after, now)
    return whole.figures()[Blend.name]


def show(blend: Blend) -> None:
    """Print each estimator's figures."""
    for name, figures in blend.quality.figures().items():
        if not figures.pairs and not figures.foreseen:
            continue
        shares = (
            figures.order_accuracy,
            figures.accuracy_without,
            figures.recency_accuracy,
            figures.coverage,
        )
        rest = (figures.lead_error, figures.hit_rate, figures.confidence, figures.brier)
        cells = ("-" if value is None else f"{value:.3f}" for value in (*shares, *rest))
        print(f"    {name:20}{figures.pairs:8}", *(f"{cell:>8}" for cell in cells))


if __name__ == "__main__":
    main()
