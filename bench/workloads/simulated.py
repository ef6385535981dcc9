"""A workload for the what-if simulator: the daemon's own estimators hear what the simulation says."""

from __future__ import annotations

from bench.workloads.base import Workload
from scalesim_daemon.whatif import workload as whatif


def simulated(workload: Workload, prompt: whatif.Prompt, *, pace: float, warmup: int) -> whatif.Workload:
    """Return the workload with its events as the script; the steps after the first `warmup` count.

    Raises `whatif.WorkloadError` where no step with a call is left.
    """
    agents = tuple(workload.personas)
    steps: list[tuple[whatif.Call, ...]] = [()]
    script = [whatif.Lines(workload.opening, ())]
    for step in workload.steps():
        steps.append(tuple(whatif.Call(call.agent, None) for call in step.calls))
        script.append(whatif.Lines(step.before, step.after))
    return whatif.Workload(
        agents, (None,) * len(agents), tuple(steps), prompt, pace, 1 + warmup, script=tuple(script)
    )
