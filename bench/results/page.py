"""The page: from the benchmarks' figures to Markdown. Pure; every number is from the files, or from the paper's."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bench.engine.classes import MIXED
from bench.engine.variants import BOTH, CEILING, SHUFFLED
from bench.policy.fitted import ENDS
from bench.results.files import Files, measured_rows
from bench.results.paper import NOT_FOUND, PER_CLASS, REPORTED
from bench.results.simulated import COMMAND, simulated
from bench.results.tables import NOT_RUN, classes_tables, commands, table
from bench.results.targets import TARGETS, Variants, Verdict, counted, pairs, value
from bench.results.worse import worse_anywhere

ENGINE_COMMAND = "make bench-engine FULL=1"
ENGINE_COMMANDS = {"vLLM": ENGINE_COMMAND, "SGLang": "make bench-engine ENGINE=sglang FULL=1"}
MIXED_NOT_YET = "the class mixed, in which calls come that nobody announces"


def render(files: Files) -> str:
    """Return the page."""
    sections = (
        _head(),
        _side_by_side(files),
        _verdicts(files),
        _worse(files),
        _paper(),
        _measured(files),
        _compared(files),
        simulated(files),
    )
    return "\n\n".join(block for section in sections for block in section) + "\n"


def _head() -> Iterator[str]:
    yield "# Results"
    yield (
        "Written by `make results` from `docs/results/*.json`; not edited by hand. Times are ratios, the engine alone "
        "over the variant: larger is better; the seconds are in the files. `recomputed` are the prompt tokens that the "
        "engine computed after the warm-up, for calls (each has new ones) and for prefetches, over the same of the "
        "engine alone: smaller is better. What is simulated is no measurement, and says so."
    )
    yield (
        "Intervals: of what is measured the middle 90 % of a bootstrap over the repetitions and over the steps within "
        "them, which doesn't know what other runs of the same would give; of what is simulated the 5 % and 95 % "
        "quantiles of the seeds, read off between them where they are few."
    )
    yield (
        "`shuffled` is not the same in both: measured, the daemon is told the truth and its dues are dealt to other "
        "agents at each tick, on their way to the plug-in, so that prefetches are right and the daemon's order "
        "accuracy is left out; simulated, what is announced of each call is another call's, so that prefetches are "
        "wrong too."
    )
    yield "![makespans](results/makespan.svg)"


def _side_by_side(files: Files) -> Iterator[str]:
    """Every headline with its control, whose dues are shuffled, and with an engine that holds everything."""
    found = files.sources
    yield "## Side by side"
    yield (
        "Makespan of `both` over the engine alone; in brackets that with shuffled dues, and of an engine that holds "
        "everything. The paper's are of another engine, model, machine and workload: a bar, not a comparison."
    )
    played = (name for classes in found.values() for name in classes)
    rows = [
        (name, _reported(name), *(_headline(classes.get(name, {})) for classes in found.values()))
        for name in dict.fromkeys((*PER_CLASS, *played, MIXED))
    ]
    yield table(("class", "reported by the paper (order inferred)", *found), rows)
    yield commands([*_measured_by(files), COMMAND])


def _measured_by(files: Files) -> list[str]:
    """Return the commands that measured what is there; vLLM's also where it isn't."""
    return [
        ENGINE_COMMANDS[title]
        for title, result in files.engines.items()
        if result is not None or title == "vLLM"
    ]


def _reported(name: str) -> str:
    return f"{PER_CLASS[name]:.2f}" if name in PER_CLASS else ""


def _headline(variants: Variants) -> str:
    numbers = [value(variants, variant, "makespan_ratio") for variant in (BOTH, SHUFFLED, CEILING)]
    both, shuffled, ceiling = (NOT_RUN if number is None else f"{number:.2f}" for number in numbers)
    return NOT_RUN if numbers[0] is None else f"{both} (shuffled {shuffled}, ceiling {ceiling})"


def _verdicts(files: Files) -> Iterator[str]:
    found = files.sources
    yield "## What it must show"
    rows = [
        (target.what, target.target, *(_verdict(target.read(classes)) for classes in found.values()))
        for target in TARGETS
    ]
    yield table(("what", "target", *found), rows)
    yield (
        "Beside a share of clairvoyant's saving stands adversarial's: what our tier saves, and what calls alone "
        "foretell, where nothing right is said. Beside the gain over shuffled dues stands that of true ones."
    )
    yield commands([*_measured_by(files), COMMAND])
    besides = [(what, target, _verdict(verdict)) for what, target, verdict in counted(files)]
    yield table(("simulator, and policies of eviction alone", "target", "counted"), besides)
    yield commands([ENGINE_COMMAND, COMMAND])


def _verdict(verdict: Verdict) -> str:
    if verdict.shown is None:
        return NOT_RUN
    return f"{verdict.shown}, {'met' if verdict.met else '**missed**'}"


def _worse(files: Files) -> Iterator[str]:
    yield "## Where we are worse"
    yield (
        "Found by rule: each missed target, each interval wholly below 1.0, each figure worse than the engine alone, "
        "and each place where what should gain doesn't."
    )
    lines = list(worse_anywhere(files))
    lines += (f"{title}: {NOT_RUN} yet." for title, result in files.engines.items() if result is None)
    if MIXED not in measured_rows(files.vllm):
        lines.append(f"{NOT_RUN.capitalize()} yet: {MIXED_NOT_YET}.")
    yield "\n".join(f"- {line}" for line in lines)


def _paper() -> Iterator[str]:
    yield "## What the paper reported"
    yield table(("what", "value", "confidence", "source"), REPORTED)
    yield f"Not found in any source that could be reached, so that it is measured here: {NOT_FOUND}."


def _measured(files: Files) -> Iterator[str]:
    for title, result in files.engines.items():
        command = ENGINE_COMMANDS[title]
        yield f"## Measured: {title}"
        if result is None:
            yield f"Not run yet: `{command}`."
            continue
        held = msgspec.to_builtins(result.conditions)
        yield "\n".join(
            f"- {key.replace('_', ' ')}: {_plain(what)}" for key, what in held.items() if what is not None
        )
        yield from classes_tables(measured_rows(result), command)


def _plain(held: object) -> str:
    if isinstance(held, dict):
        return ", ".join(
            f"{name} {what:.1%}" if isinstance(what, float) else f"{name} {what}"
            for name, what in held.items()
        )
    return str(held)


def _compared(files: Files) -> Iterator[str]:
    yield "## Simulator against reality"
    found = pairs(files)
    if files.vllm is None or files.policy is None or not found:
        yield f"Not run yet: `{ENGINE_COMMAND}`, and then `{COMMAND}`."
        return
    engine = files.policy["twin"]
    yield (
        "Makespan ratios measured on vLLM, and of the same calls simulated: the same workloads, seeds, agents, "
        f"prompts, pool and tier; `cpu`, below, has more seeds. The cost model is `{engine['costs']}`: "
        f"{engine['source']}. The measured engine had {files.vllm.conditions.cores} cores. What a cost model may be "
        f"fitted to ({', '.join(ENDS)}) is not compared, and `{SHUFFLED}` is not the same in both (above)."
    )
    rows = [
        (
            pair.name,
            pair.variant,
            f"{pair.measured:.2f}",
            f"{pair.foretold:.2f}",
            f"{pair.off:+.0%}" if pair.close else f"**{pair.off:+.0%}**",
            *(f"{ratio:.3f}" for ratio in pair.tokens),
        )
        for pair in found
    ]
    head = (
        "class",
        "variant",
        "measured",
        "foretold",
        "off by",
        "recomputed, measured",
        "recomputed, foretold",
    )
    yield table(head, rows)
    yield commands([ENGINE_COMMAND, COMMAND])
