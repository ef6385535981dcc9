"""The page's sections of what is simulated and counted. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.results.files import Files
from bench.results.tables import NOT_RUN, classes_tables, commands, table

COMMAND = "make bench-policy"


def simulated(files: Files) -> Iterator[str]:
    """Yield the simulated engines, the sweeps, and the policies of eviction alone."""
    if files.policy is None:
        yield "## Simulated"
        yield f"Not run yet: `{COMMAND}`."
        return
    for name, engine in files.policy["engines"].items():
        yield f"## Simulated: {name}"
        yield _setting(engine)
        yield from classes_tables(engine["classes"], COMMAND)
    yield "## Simulated: sweeps"
    yield "![sweeps](results/sweeps.svg)"
    for title, rows in files.policy["sweeps"].items():
        yield f"### {title}"
        yield _sweep(rows)
        yield commands([COMMAND])
    yield "### the largest populations"
    if files.scale is None:
        yield f"10,000 and 100,000 agents: {NOT_RUN} (`{COMMAND} SCALE=1`)."
    else:
        yield _sweep(files.scale["agents"])
        yield commands([f"{COMMAND} SCALE=1"])
    yield from _policies(files.policy)


def _setting(engine: Mapping[str, Any]) -> str:
    prompt, active, seeds = engine["prompt"], engine["active"], engine["seeds"]
    shares = ", ".join(f"{share:.0%} ({name})" for name, share in active.items())
    return (
        f"{engine['agents']} agents, of which so many call in a step: {shares}; all calls of a step at once, without "
        f"pause; a device for {engine['device_tokens']:,} tokens ({engine['pool_share']:.0%} of "
        f"{engine['footprint']:,} for each agent), a host tier for {engine['host_tokens']:,} "
        f"({engine['tier_share']:.0%}) with all variants but alone, ceiling and those named `no_tier`. The ceiling's "
        f"device holds everything, and has computed all prefixes beforehand. Prompts of {prompt['shared']} shared, "
        f"{prompt['private']} private and {prompt['fresh']} new tokens, answers of {prompt['output']}; "
        f"{engine['steps']} steps after a warm-up; medians of {len(seeds)} seeds ({seeds[0]} to {seeds[-1]}). Cost "
        f"model `{engine['costs']}`: {engine['source']}.{_traffic(engine['traffic'])}"
    )


def _traffic(said: Mapping[str, Any] | None) -> str:
    if said is None:
        return ""
    source = said["source"] or "unknown source"
    return (
        f" In the class mixed come requests that nobody announces, {said['rate']:g} a second on average, of at most "
        f"{said['longest']:,} tokens: {said['name']} of {source}, sha256 `{said['sha256']}`; `TRAFFIC` tells the "
        "command of it."
    )


def _sweep(rows: list[dict[str, Any]]) -> str:
    head = ("agents", "active", "steps", "seeds", *rows[0]["variants"])
    return table(head, [tuple(_place(row)) for row in rows])


def _place(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"{row['agents']:,}"
    yield f"{row['active']:.0%}"
    yield str(row["steps"])
    yield str(row["seeds"])
    for found in row["variants"].values():
        yield f"{found['makespan_ratio']:.2f}"


def _policies(policy: Mapping[str, Any]) -> Iterator[str]:
    yield "## Counted: misses of equal items"
    equal = policy["equal"]
    names = list(equal[0]["misses"])
    yield table(
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
    yield commands([COMMAND])
    yield "## Counted: seconds lost to misses of items of mixed sizes"
    yield (
        "Eviction by due and by rent is told the true step of every next call, and Belady-size its true place; GDSF "
        "and LRU are told nothing, so that this is what knowing is worth, not which of them guesses better. Sizes and "
        "costs are drawn as `bench/policy/items.py` says; `held` is how many items of average size a cache has room "
        "for, and what is larger than the cache is never held. `GDSF, misses` and the other policies of libcachesim "
        "know sizes and count every miss as one; `GDSF, seconds` also knows what misses cost."
    )
    names = list(policy["mixed"][0]["seconds"])
    yield table(
        ("items", "trace", "cache", "held", *names, "by rent over GDSF"),
        [
            (
                row["items"],
                row["trace"],
                f"{row['share']:.0%}",
                f"{row['held']:.1f}",
                *(f"{row['seconds'][name]:.1f}" for name in names),
                f"{row['over_gdsf']:+.1%}",
            )
            for row in policy["mixed"]
        ],
    )
    yield commands([COMMAND])
