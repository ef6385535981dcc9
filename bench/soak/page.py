"""The part of docs/reliability.md that follows from docs/results/soak.json: `python -m bench.soak.page` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.results.pages import with_part
from bench.results.tables import table
from bench.soak.result import Conditions, Result, read

PAGE, FIGURES = Path("docs/reliability.md"), Path("docs/results/soak.json")
MARKS = ("<!-- soak: written by `make results` -->", "<!-- end of soak -->")
NOT_RUN = "`make soak` has not been run for its half hour."
VERDICTS = {True: "held", False: "not held", None: "too short to say"}


def written(result: Result | None) -> str:
    """Return what is known of the last run."""
    if result is None:
        return NOT_RUN
    rows = [(one.name, one.measured, one.bound, VERDICTS[one.held]) for one in result.checks]
    parts = ["\n".join(_lines(result)), table(("what", "measured", "bound", ""), rows)]
    return "\n\n".join(parts)


def _lines(result: Result) -> Iterator[str]:
    held, figures, said = result.conditions, result.figures, result.said
    yield f"- `{held.command}`, {held.played}, {held.cores} cores, Python {held.python}, seed {held.seed}"
    yield (
        f"- {figures.minutes:.1f} minutes, {figures.events_per_second:,.0f} events a second, {said.sent:,} in all, in "
        f"{said.streams:,} streams; {said.gone + said.left:,} agents came and went; {said.requests:,} calls of engines"
    )
    yield f"- {_machine(held)}"


def _machine(held: Conditions) -> str:
    used = ", ".join(f"{name} {cores:.2f}" for name, cores in held.cores_used.items())
    before, after = held.load_average
    return (
        f"cores used: {used}; the daemon's loop waited for a core {held.waited_for_a_core:.1%} of the time; load "
        f"average {before} before and {after} after"
    )


def renewed(page: str, result: Result | None) -> str:
    """Return the page with that part written anew."""
    return with_part(page, MARKS, written(result))


def main() -> None:
    """Write the page anew."""
    result = read(FIGURES) if FIGURES.exists() else None
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")


if __name__ == "__main__":
    main()
