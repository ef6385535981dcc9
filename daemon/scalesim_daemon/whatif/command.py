"""`scalesimd simulate` and `scalesimd calibrate`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from scalesim_daemon.engine_options import ApiKeyFile, EngineUrl
from scalesim_daemon.whatif.ask import Ask, Scene, answer, count
from scalesim_daemon.whatif.calibrate import CalibrationError, measure, prepare
from scalesim_daemon.whatif.costs import H100_QWEN_7B, PRESETS, CostError, load_costs, save_costs
from scalesim_daemon.whatif.show import PlotError, as_json, as_tables, draw
from scalesim_daemon.whatif.workload import Drawn, Foresight, Gaps, Prompt, WorkloadError

FAILED = 2
# Where the output isn't a terminal, tables aren't squeezed.
PAPER_WIDTH = 160

DRAWN, PROMPT = Drawn(), Prompt()
SIMULATION, PROMPTS, ENGINE, OUTPUT = "Simulation", "Prompts", "Engine", "Output"


def simulate(
    ask: Annotated[
        Ask,
        typer.Argument(
            help="gain: what the sidecar and its plug-in gain here. memory: what more memory on the device would buy. "
            "agents: how many fit. foresight: what is left of the gain when the announcements are off."
        ),
    ] = Ask.GAIN,
    agents: Annotated[int, typer.Option(help="How many agents.", rich_help_panel=SIMULATION)] = DRAWN.agents,
    steps: Annotated[
        int, typer.Option(help="Steps that count, after a warm-up.", rich_help_panel=SIMULATION)
    ] = DRAWN.steps,
    active: Annotated[
        float, typer.Option(help="Share of the agents that call in a step.", rich_help_panel=SIMULATION)
    ] = DRAWN.active,
    gaps: Annotated[
        Gaps,
        typer.Option(
            help="Steps between an agent's calls: random around the mean, or always the mean.",
            rich_help_panel=SIMULATION,
        ),
    ] = DRAWN.gaps,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="A recorded simulation instead of a drawn one: CSV with the columns step and agent, a line per call.",
            rich_help_panel=SIMULATION,
        ),
    ] = None,
    pace: Annotated[
        float,
        typer.Option(help="Seconds that the simulation itself takes per step.", rich_help_panel=SIMULATION),
    ] = DRAWN.pace,
    concurrency: Annotated[
        int | None,
        typer.Option(help="Most calls at a time; without it all of a step.", rich_help_panel=SIMULATION),
    ] = DRAWN.concurrency,
    error: Annotated[
        float,
        typer.Option(
            help="By how much of itself an announced gap may be off: 0.5 is up to half either way.",
            rich_help_panel=SIMULATION,
        ),
    ] = 0.0,
    misled: Annotated[
        float,
        typer.Option(help="Share of the announcements that tell nothing.", rich_help_panel=SIMULATION),
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(help="Equal seeds give equal figures.", rich_help_panel=SIMULATION)
    ] = DRAWN.seed,
    shared: Annotated[
        int, typer.Option(help="Prompt tokens that all agents share.", rich_help_panel=PROMPTS)
    ] = PROMPT.shared,
    private: Annotated[
        int, typer.Option(help="Prompt tokens of an agent's own, always the same.", rich_help_panel=PROMPTS)
    ] = PROMPT.private,
    fresh: Annotated[
        int, typer.Option(help="Prompt tokens that are new in each call.", rich_help_panel=PROMPTS)
    ] = PROMPT.fresh,
    output: Annotated[
        int, typer.Option(help="Tokens of an answer.", rich_help_panel=PROMPTS)
    ] = PROMPT.output,
    costs: Annotated[
        str,
        typer.Option(
            help=f"What the engine's work costs: {', '.join(PRESETS)}, or a file as `calibrate` writes it.",
            rich_help_panel=ENGINE,
        ),
    ] = H100_QWEN_7B.name,
    memory: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens that the prefix cache holds; by default as the costs say.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    host: Annotated[
        int,
        typer.Option(
            min=0,
            help="Tokens that a host tier holds: copies by recency, or with the plug-in what the device doesn't.",
            rich_help_panel=ENGINE,
        ),
    ] = 0,
    slowdown: Annotated[
        float,
        typer.Option(
            min=1.0,
            help="For agents: how many times as long a step may take as with everything in memory.",
            rich_help_panel=ENGINE,
        ),
    ] = 1.25,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw a PNG; needs matplotlib.", rich_help_panel=OUTPUT)
    ] = None,
) -> None:
    """Simulate an engine with the daemon's own estimators and planner beside it, and answer what would happen if.

    Prefix caches only, one engine. The last line of the output is one JSON object. What the numbers of an engine rest
    on is printed; `scalesimd calibrate` measures your own.
    """
    try:
        prompt = Prompt(shared, private, fresh, output)
        drawn = Drawn(agents, steps, active, gaps, pace, concurrency, prompt, seed)
        known = load_costs(costs)
        scene = Scene(drawn, trace, Foresight(error, misled), known, memory or known.device_tokens, host)
        with _progress(count(ask)) as tick:
            answered = answer(ask, scene, slowdown, tick)
        if plot is not None:
            draw(answered, plot)
    except (CostError, PlotError, WorkloadError) as problem:
        _fail(str(problem))
    terminal = Console().is_terminal
    Console(width=None if terminal else PAPER_WIDTH).print(as_tables(answered, scene))
    typer.echo(json.dumps(as_json(answered, scene)))


def calibrate(
    url: EngineUrl,
    out: Annotated[Path, typer.Option(help="The file to write, for `simulate --costs`.")] = Path(
        "costs.yaml"
    ),
    api_key_file: ApiKeyFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask before sending.")] = False,
) -> None:
    """Measure what an idle engine's work costs by a few requests of random tokens, and write it to a file.

    What a load from host memory costs can't be seen from outside: write host_token_seconds into the file if you know.
    """
    try:
        programme = asyncio.run(prepare(url, api_key_file))
        typer.echo(f"This sends {programme.described()}")
        if not yes and not typer.confirm("Go on?"):
            raise typer.Exit(1)
        with _progress(len(programme.lengths) + 2) as tick:
            costs = asyncio.run(measure(programme, tick))
        save_costs(costs, out)
    except CalibrationError as problem:
        _fail(str(problem))
    except OSError as problem:
        _fail(f"{out}: {problem.strerror}")
    typer.echo(
        f"{out}: a step {costs.step_seconds * 1e3:.3g} ms, a prompt token {costs.prefill_token_seconds * 1e3:.3g} ms, "
        f"a request's next token {costs.decode_request_seconds * 1e3:.3g} ms; {costs.device_tokens:,} tokens of cache"
    )


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[str], None]]:
    """Show on a terminal how far it is; yields what is to be told at the start of each part."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, completed=-1)
        yield lambda what: progress.update(task, description=what, advance=1)


def _fail(problem: str) -> NoReturn:
    typer.echo(f"scalesimd: {problem}", err=True)
    raise typer.Exit(FAILED)
