"""One simulation on one engine, from its first step to its last, and the figures of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean

import simpy

from scalesim_adapters.dues import DueTable
from scalesim_client.events import (
    ActivityStarted,
    AgentIdled,
    Event,
    InvocationFinished,
    InvocationStarted,
    StepAdvanced,
)
from scalesim_daemon import report_estimators
from scalesim_daemon.whatif.costs import Costs
from scalesim_daemon.whatif.engine import Engine, Process
from scalesim_daemon.whatif.memory import Device, Host
from scalesim_daemon.whatif.order import ByDue, ByRecency, Order
from scalesim_daemon.whatif.sidecar import Sidecar, key_of
from scalesim_daemon.whatif.workload import Call, Workload, WorkloadError


@dataclass(frozen=True, slots=True)
class Setup:
    """What is beside and inside the engine. `by_due`: our plug-ins choose what is evicted, on the device and in the
    host tier. `host_exclusive`: the tier holds what the device doesn't, as our plug-in's does, and no copies."""

    prefetch: bool = False
    by_due: bool = False
    host_exclusive: bool = False


ALONE = Setup()
SIDECAR = Setup(prefetch=True)
PLUGIN = Setup(prefetch=True, by_due=True, host_exclusive=True)


@dataclass(frozen=True, slots=True)
class Figures:
    """What came out, over the steps that count. Times are simulated seconds, `makespan` with the simulation's own time.

    `cached` is the share of the calls' prompt tokens that weren't computed for them, `recomputed` the tokens of the
    agents' prefixes that were, `loaded` those that came from the host tier. `computed` are all prompt tokens that the
    engine computed meanwhile, for calls and for prefetches. Prefetches are counted over the whole run, warm-up
    included, as the daemon's report does; `order` is the share of pairs of calls that were foretold in their order.
    """

    makespan: float
    calls: int
    ttft_mean: float
    ttft_p95: float
    cached: float
    recomputed: int
    loaded: int
    computed: int
    prefetches: int = 0
    prefetches_used: int = 0
    prefetches_wasted: int = 0
    prefetched_tokens: int = 0
    wasted_tokens: int = 0
    touches: int = 0
    order: float | None = None


@dataclass(slots=True)
class _Counted:
    """The sums over the calls that count; when these began, and how many tokens were `prefetched` before."""

    ttfts: list[float] = field(default_factory=list)
    computed: int = 0
    recomputed: int = 0
    loaded: int = 0
    began: float = 0.0
    prefetched: int = 0


def simulate(
    workload: Workload, costs: Costs, setup: Setup, *, device_tokens: int | None = None, host_tokens: int = 0
) -> Figures:
    """Play the workload once; equal arguments give equal figures. `device_tokens` None is what the cost model says.

    Raises `WorkloadError` where a call doesn't fit into the memory, or the cost of the host tier isn't known.
    """
    return _Play(workload, costs, setup, device_tokens or costs.device_tokens, host_tokens).run()


def needed_tokens(workload: Workload, costs: Costs) -> int:
    """Return how many tokens of memory one call takes."""
    block, prompt = costs.block_tokens, workload.prompt
    prefix = (prompt.shared + prompt.private) // block
    rest = -(-(prompt.tokens - prefix * block + prompt.output) // block)
    return (prefix + rest) * block


class _Play:
    def __init__(
        self, workload: Workload, costs: Costs, setup: Setup, device_tokens: int, host_tokens: int
    ) -> None:
        block, prompt = costs.block_tokens, workload.prompt
        shared = prompt.shared // block
        self._prefix = (prompt.shared + prompt.private) // block - shared
        # What follows the last whole block of a prefix is computed with every call.
        self._fresh = prompt.tokens - (shared + self._prefix) * block
        self._workload = workload
        self._block = block
        self._env = simpy.Environment()
        table = DueTable(silence=math.inf)

        def order() -> Order:
            return ByDue(table) if setup.by_due else ByRecency()

        if host_tokens and costs.host_token_seconds is None:
            raise WorkloadError(
                f"{costs.name} doesn't say what a load from the host costs (host_token_seconds)"
            )
        host = Host(host_tokens // block, order(), exclusive=setup.host_exclusive) if host_tokens else None
        device = Device(device_tokens // block - shared, order(), host)
        self._engine = Engine(self._env, costs, device)
        longest = max((one.prompt + one.output for one in workload.strangers), default=0)
        needed = max(needed_tokens(workload, costs), -(-longest // block) * block)
        if needed > device_tokens // block * block:
            raise WorkloadError(f"a call needs {needed} tokens of memory; {device_tokens} don't hold one")
        self._sidecar: Sidecar | None = None
        if setup.prefetch or setup.by_due:
            prefixes: Mapping[str, int] = {key_of(agent): self._prefix for agent in workload.agents}
            self._sidecar = Sidecar(
                self._env,
                self._engine,
                costs,
                table,
                prefixes,
                prefetch=setup.prefetch,
                shared=bool(workload.strangers),
            )
        limit = workload.concurrency or len(workload.agents)
        self._slots = simpy.Resource(self._env, limit)
        self._counted = _Counted()

    def run(self) -> Figures:
        """Play all steps."""
        self._env.process(self._strangers())
        self._env.run(self._env.process(self._steps()))
        counted, prompt = self._counted, self._workload.prompt
        ttfts = sorted(counted.ttfts)
        figures = Figures(
            makespan=self._env.now - counted.began,
            calls=len(ttfts),
            ttft_mean=fmean(ttfts),
            ttft_p95=ttfts[math.ceil(0.95 * len(ttfts)) - 1],
            cached=1 - counted.computed / (len(ttfts) * prompt.tokens),
            recomputed=counted.recomputed,
            loaded=counted.loaded,
            computed=counted.computed,
        )
        if self._sidecar is None:
            return figures
        ledger = self._sidecar.view.ledger
        return replace(
            figures,
            computed=counted.computed + ledger.tokens - counted.prefetched,
            prefetches=ledger.prefetches,
            prefetches_used=ledger.used,
            prefetches_wasted=ledger.wasted,
            prefetched_tokens=ledger.tokens,
            wasted_tokens=ledger.tokens_wasted,
            touches=ledger.touches,
            order=report_estimators.order(self._sidecar.population).order_accuracy,
        )

    def _say(self, *events: Event) -> None:
        if self._sidecar is not None:
            self._sidecar.say(events)

    def _steps(self) -> Process:
        workload, script = self._workload, self._workload.script
        if script is None:
            self._say(
                *(_acts(agent, told) for agent, told in zip(workload.agents, workload.opening, strict=True))
            )
        for now, calls in enumerate(workload.steps):
            if now == workload.warmup:
                self._counted.began = self._env.now
                self._counted.prefetched = 0 if self._sidecar is None else self._sidecar.view.ledger.tokens
            self._say(StepAdvanced(now=float(now)), *(script[now].before if script else ()))
            if calls:
                counts = now >= workload.warmup
                yield self._env.all_of([self._env.process(self._call(call, counts)) for call in calls])
            if script:
                self._say(*script[now].after)
            yield self._env.timeout(workload.pace)

    def _strangers(self) -> Process:
        for number, stranger in enumerate(self._workload.strangers):
            yield self._env.timeout(stranger.at - self._env.now)
            self._engine.submit(f"stranger {number}", 0, stranger.prompt, stranger.output)

    def _call(self, call: Call, counts: bool) -> Process:
        with self._slots.request() as slot:
            yield slot
            self._say(InvocationStarted(agent=call.agent))
            began = self._env.now
            request = self._engine.submit(
                key_of(call.agent), self._prefix, self._fresh, self._workload.prompt.output
            )
            yield request.ended
            told = () if self._workload.script else (_acts(call.agent, call.told),)
            self._say(InvocationFinished(agent=call.agent), *told)
        if counts:
            counted = self._counted
            counted.ttfts.append(request.first_token - began)
            counted.computed += request.computed(self._block)
            counted.recomputed += request.computed(self._block) - self._fresh
            counted.loaded += request.loaded * self._block


def _acts(agent: str, steps: int | None) -> Event:
    """Say how long the agent acts on its own."""
    if steps is None:
        return AgentIdled(agent=agent)
    return ActivityStarted(agent=agent, for_=float(steps))
