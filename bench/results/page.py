"""The page: from the benchmarks' figures to Markdown. Pure; every number is from the files, or from the paper's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.results.paper import NOT_FOUND, PER_CLASS, REPORTED
from bench.results.targets import CLOSE, ENOUGH_PAIRS, TARGETS, Classes, Verdict, misses, pairs, value
from bench.results.worse import worse, worse_policies

NOT_RUN = "not run"
CORE = ("alone", "host_lru", "both", "shuffled", "adversarial")
FULL = ("evict_only", "prefetch_only", "clairvoyant", "noise_25", "noise_50", "history", "ceiling")
ENGINE_COMMAND = {"vllm": "make bench-engine FULL=1", "sglang": "make bench-engine ENGINE=sglang FULL=1"}
TITLES = {"vllm": "vLLM", "sglang": "SGLang"}
COLUMNS = (
    ("makespan", "makespan_ratio", ".2f"),
    ("TTFT mean", "ttft_mean_ratio", ".2f"),
    ("TTFT p95", "ttft_p95_ratio", ".2f"),
    ("cached share", "cached_share", ".2f"),
    ("recomputed", "recomputed_tokens_ratio", ".3f"),
    ("order accuracy", "order_accuracy", ".2f"),
    ("precision", "precision", ".2f"),
    ("waste", "waste", ".2f"),
    ("failed", "failed_requests", "d"),
    ("daemon CPU, s", "daemon_cpu_seconds", ".1f"),
)


@dataclass(frozen=True, slots=True)
class Files:
    """What the benchmarks wrote: each engine's figures by its name, where it was run, and the simulated ones."""

    engines: Mapping[str, Mapping[str, Any]]
    policy: Mapping[str, Any] | None


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
        _simulated(files),
    )
    return "\n\n".join(block for section in sections for block in section) + "\n"


def _head() -> Iterator[str]:
    yield "# Results"
    yield (
        "Written by `make results` from `docs/results/*.json`; not edited by hand. Times are ratios, the engine alone "
        "over the variant: larger is better. `recomputed` is the variant's tokens over the engine alone's: smaller is "
        "better. Intervals hold nine in ten runs. What is simulated is no measurement, and says so."
    )
    yield "![makespans](results/makespan.svg)"


def sources(files: Files) -> dict[str, Classes]:
    """Return the classes of each source of figures, by its title."""
    measured = {f"{TITLES[name]}, measured": engine["classes"] for name, engine in files.engines.items()}
    if files.policy is None:
        return measured
    return measured | {
        f"{name}, simulated": engine["classes"] for name, engine in files.policy["engines"].items()
    }


def _side_by_side(files: Files) -> Iterator[str]:
    """Every headline with its control, whose dues are shuffled, and with an engine that holds everything."""
    found = sources(files)
    yield "## Side by side"
    yield (
        "Makespan of `both` over the engine alone; in brackets that with shuffled dues, and of an engine that holds "
        "everything. The paper's are of another engine, model, machine and workload: a bar, not a comparison."
    )
    names = dict.fromkeys((*PER_CLASS, *(name for classes in found.values() for name in classes)))
    rows = [
        (name, _reported(name), *(_headline(classes.get(name, {})) for classes in found.values()))
        for name in names
    ]
    yield _table(("class", "reported by the paper (order inferred)", *found), rows)
    yield _commands(["make bench-engine FULL=1", "make bench-policy"])


def _reported(name: str) -> str:
    return f"{PER_CLASS[name]:.2f}" if name in PER_CLASS else ""


def _headline(variants: Mapping[str, Mapping[str, Any]]) -> str:
    numbers = [value(variants, variant, "makespan_ratio") for variant in ("both", "shuffled", "ceiling")]
    both, shuffled, ceiling = (NOT_RUN if number is None else f"{number:.2f}" for number in numbers)
    return NOT_RUN if numbers[0] is None else f"{both} (shuffled {shuffled}, ceiling {ceiling})"


def _verdicts(files: Files) -> Iterator[str]:
    found = sources(files)
    if "vllm" not in files.engines:
        found = {"vLLM, measured": {}} | found
    yield "## What it must show"
    rows = [
        (target.what, target.target, *(_verdict(target.read(classes)) for classes in found.values()))
        for target in TARGETS
    ]
    yield _table(("what", "target", *found), rows)
    yield _commands(["make bench-engine", "make bench-policy"])
    if files.policy is not None:
        yield _table(
            ("policies of eviction alone", "target", "counted"),
            [(what, target, _verdict(verdict)) for what, target, verdict in misses(files.policy)],
        )
        yield _commands(["make bench-policy"])


def _verdict(verdict: Verdict) -> str:
    if verdict.shown is None:
        return NOT_RUN
    return f"{verdict.shown}, {'met' if verdict.met else '**missed**'}"


def _worse(files: Files) -> Iterator[str]:
    yield "## Where we are worse"
    lines = [line for source, classes in sources(files).items() for line in worse(source, classes)]
    if files.policy is not None:
        lines += worse_policies(files.policy)
    lines += (f"{TITLES[name]}: {NOT_RUN} yet." for name in TITLES if name not in files.engines)
    yield "Found by rule: each missed target, each interval wholly below 1.0, each figure worse than the engine alone."
    yield "\n".join(f"- {line}" for line in lines) if lines else "Nowhere."


def _paper() -> Iterator[str]:
    yield "## What the paper reported"
    yield _table(("what", "value", "confidence", "source"), REPORTED)
    yield f"Not found in any source that could be reached, so that it is measured here: {NOT_FOUND}."


def _measured(files: Files) -> Iterator[str]:
    for name, title in TITLES.items():
        yield f"## Measured: {title}"
        engine = files.engines.get(name)
        if engine is None:
            yield f"Not run yet: `{ENGINE_COMMAND[name]}`."
            continue
        conditions = (
            f"{key.replace('_', ' ')}: {_plain(held)}" for key, held in engine["conditions"].items()
        )
        yield "\n".join(f"- {line}" for line in conditions)
        yield from _classes(engine["classes"], ENGINE_COMMAND[name])


def _classes(classes: Classes, command: str) -> Iterator[str]:
    for name, variants in classes.items():
        yield f"### {name}"
        names = dict.fromkeys((*CORE, *FULL, *variants))
        columns = [column for column in COLUMNS if any(column[1] in row for row in variants.values())]
        rows = [(variant, *_cells(variants.get(variant), columns)) for variant in names]
        yield _table(("variant", *(title for title, _, _ in columns)), rows)
        yield _commands([command])


def _cells(row: Mapping[str, Any] | None, columns: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    for _, key, form in columns:
        if row is None:
            yield NOT_RUN
            continue
        number = row.get(key)
        shown = "" if number is None else format(number, form)
        if key == "makespan_ratio" and number is not None and row.get(f"{key}_low") is not None:
            shown += f" ({row[f'{key}_low']:.2f} to {row[f'{key}_high']:.2f})"
        yield shown


def _compared(files: Files) -> Iterator[str]:
    if files.policy is None or "vllm" not in files.engines:
        return
    yield "## Measured beside simulated"
    found = pairs(files.engines["vllm"]["classes"], files.policy["engines"]["cpu"]["classes"])
    close = sum(abs(foretold / measured - 1) <= CLOSE for _, _, measured, foretold in found)
    yield (
        f"Makespan ratios of vLLM on a CPU, and of the simulated CPU engine under its own conditions (below): {close} "
        f"of {len(found)} within {CLOSE:.0%}; the target is at least {ENOUGH_PAIRS}."
    )
    rows = [
        (name, variant, f"{measured:.2f}", f"{foretold:.2f}", f"{foretold / measured - 1:+.0%}")
        for name, variant, measured, foretold in found
    ]
    yield _table(("class", "variant", "measured", "simulated", "off by"), rows)
    yield _commands([ENGINE_COMMAND["vllm"], "make bench-policy"])


def _simulated(files: Files) -> Iterator[str]:
    if files.policy is None:
        yield "## Simulated"
        yield "Not run yet: `make bench-policy`."
        return
    for name, engine in files.policy["engines"].items():
        yield f"## Simulated: {name}"
        yield _setting(engine)
        yield from _classes(engine["classes"], "make bench-policy")
    yield "## Simulated: sweeps"
    yield "![sweeps](results/sweeps.svg)"
    for title, rows in files.policy["sweeps"].items():
        yield f"### {title}"
        yield _table(("agents", "active", *rows[0]["variants"]), [tuple(_place(row)) for row in rows])
        yield _commands(["make bench-policy"])
    yield from _policies(files.policy)


def _setting(engine: Mapping[str, Any]) -> str:
    prompt, active = engine["prompt"], engine["active"]
    shares = ", ".join(f"{share:.0%} ({name})" for name, share in active.items())
    at_once = "all calls of a step" if engine["concurrency"] is None else f"{engine['concurrency']} calls"
    return (
        f"{engine['agents']} agents, of which so many call in a step: {shares}; {at_once} at once, without pause; a "
        f"device for {engine['device_tokens']:,} tokens ({engine['resident_share']:.0%} of the agents' prefixes), a "
        f"host tier for {engine['host_tokens']:,} ({engine['host_share']:.0%}) with all variants but alone, ceiling "
        f"and those named `no_host`. Prompts of {prompt['shared']} shared, {prompt['private']} private and "
        f"{prompt['fresh']} new tokens, answers of {prompt['output']}; {engine['steps']} steps after a warm-up; "
        f"medians of {engine['seeds']} seeds. Costs: {engine['source']}."
    )


def _place(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"{row['agents']:,}"
    yield f"{row['active']:.0%}"
    for found in row["variants"].values():
        yield f"{found['makespan_ratio']:.2f}"


def _policies(policy: Mapping[str, Any]) -> Iterator[str]:
    yield "## Counted: misses of equal items"
    equal = policy["equal"]
    names = list(equal[0]["misses"])
    yield _table(
        ("trace", "agents", "cache", "calls", *names, "over Belady"),
        [
            (
                row["trace"],
                *(f"{row[key]:,}" for key in ("agents", "capacity", "calls")),
                *(f"{row['misses'][name]:,}" for name in names),
                f"{row['over_belady']:+.2%}",
            )
            for row in equal
        ],
    )
    yield _commands(["make bench-policy"])
    yield "## Counted: seconds lost to misses of items of mixed sizes"
    yield (
        "Sizes and costs are drawn as `bench/policy/items.py` says; a cache holds ten items of average size at least. "
        "`GDSF, misses` and the other policies of libcachesim know sizes and count every miss as one; `GDSF, seconds` "
        "also knows what misses cost."
    )
    names = list(policy["mixed"][0]["seconds"])
    yield _table(
        ("items", "trace", "cache", *names, "by rent over GDSF"),
        [
            (
                row["items"],
                row["trace"],
                f"{row['share']:.0%}",
                *(f"{row['seconds'][name]:.1f}" for name in names),
                f"{row['over_gdsf']:+.1%}",
            )
            for row in policy["mixed"]
        ],
    )
    yield _commands(["make bench-policy"])


def _plain(held: object) -> str:
    return ", ".join(map(str, held)) if isinstance(held, list) else str(held)


def _commands(commands: Sequence[str]) -> str:
    return f"Written by {' and '.join(f'`{command}`' for command in commands)}."


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, tuple("---" for _ in head), *(tuple(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
