"""What `top` shows, as cells of tables and lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from scalesim_daemon.api_models import Engines, EngineState, PlannedStep, PlanState, Report
from scalesim_daemon.ctl.top.heard import Heard, Population
from scalesim_daemon.ctl.views.engines import engine_state, outcome
from scalesim_daemon.ctl.views.texts import NONE, line, number, seconds, share, size, step_words

Row = tuple[str, tuple[str, ...]]

AGENT_COLUMNS = ("agent", "distance", "seconds", "tier", "resident", "")
ENGINE_COLUMNS = (
    "engine",
    "state",
    "blocks",
    "free",
    "LoRAs",
    "running",
    "waiting",
    "prefetches",
    "used",
    "wasted",
)
PLAN_COLUMNS = ("engine", "when", "step", "of", "seconds", "why")
NOW, PLANNED = "now", "planned"


def agent_rows(population: Population, agents: Sequence[Heard]) -> list[Row]:
    """Each agent's key and cells."""
    return [(agent.key, _agent_cells(population, agent)) for agent in agents]


def engine_rows(engines: Engines) -> list[Row]:
    """Each engine's name and cells."""
    return [(engine.name, _engine_cells(engine)) for engine in engines.engines]


def plan_rows(plan: PlanState, most: int) -> list[Row]:
    """The steps under way, then those that are planned; the key is the step's place in the list."""
    steps = list(_steps(plan))[:most]
    return [(str(place), cells) for place, cells in enumerate(steps)]


def outcomes(engines: Engines, report: Report) -> Text:
    """What the prefetches came to, how good the estimates were, and what is left of the shared budgets."""
    budgets = engines.budgets
    free = f"copies of LoRAs: {size(budgets.staging_free)} of {size(budgets.staging)} free"
    models = "" if budgets.models is None else f"; models {size(budgets.models)}"
    return Text("\n").join([*outcome(report), line(free + models)])


def _agent_cells(population: Population, agent: Heard) -> tuple[str, ...]:
    clock = population.clocks.get(agent.source or "")
    distance = "far"
    if agent.due is not None and clock is not None:
        distance = f"{population.distance(agent):g} {clock.kind}"
    marks = (["in flight"] if agent.in_flight else []) + (["pinned"] if agent.pinned else [])
    paced = clock is not None and clock.pace is not None
    return (
        agent.key,
        distance,
        seconds(population.seconds(agent)) if paced else NONE,
        agent.tier or NONE,
        NONE if agent.resident is None else share(agent.resident),
        ", ".join(marks),
    )


def _engine_cells(engine: EngineState) -> tuple[str, ...]:
    blocks, pressure, ledger = engine.blocks, engine.pressure, engine.ledger
    held = ""
    if blocks.resident is not None and blocks.capacity:
        held = f" ({share(blocks.resident / blocks.capacity)})"
    return (
        engine.name,
        engine_state(engine),
        f"{number(blocks.resident)}/{number(blocks.capacity)}{held}",
        number(blocks.free),
        f"{len(engine.loras.device)}/{number(engine.loras.device_places)}",
        number(pressure.running if pressure else None),
        number(pressure.waiting if pressure else None),
        str(ledger.prefetches),
        str(ledger.prefetches_used),
        str(ledger.prefetches_wasted),
    )


def _steps(plan: PlanState) -> Iterator[tuple[str, ...]]:
    for engine in plan.engines:
        yield from (_step_cells(engine.engine, NOW, step) for step in engine.in_flight)
    for engine in plan.engines:
        yield from (_step_cells(engine.engine, PLANNED, step) for step in (*engine.loras, *engine.blocks))
    yield from (_step_cells("all", PLANNED, step) for step in plan.models)


def _step_cells(engine: str, when: str, step: PlannedStep) -> tuple[str, ...]:
    return (engine, when, step_words(step), step.key, seconds(step.seconds), step.reason)
