"""The part of docs/fleet.md that follows from docs/results/fleet.json: `python -m bench.fleet.page` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.fleet.result import FOUND, Conditions, Result, figures, read
from bench.fleet.run import Outcome
from bench.fleet.schedule import Kind
from bench.results.pages import with_part
from bench.results.tables import table

PAGE, FIGURES = Path("docs/fleet.md"), Path("docs/results/fleet.json")
MARKS = ("<!-- schedules: written by `make results` -->", "<!-- end of schedules -->")

WHAT: Mapping[Kind, str] = {
    Kind.DAEMON_KILLED: "SIGKILL, started again",
    Kind.DAEMON_FROZEN: "SIGSTOP, SIGCONT",
    Kind.STORE_LOST: "cut off from Redis, both ways",
    Kind.STORE_MUTE: "what it sends Redis is lost",
    Kind.STORE_DEAF: "what Redis answers it is lost",
    Kind.ENGINE_LOST: "cut off from one engine, both ways",
    Kind.ENGINE_MUTE: "what it sends one engine is lost",
    Kind.ENGINE_DEAF: "what one engine answers it is lost",
    Kind.HOST_UNPLUGGED: "its host's link is down",
    Kind.HOST_SLOW: "its host's link carries 200 kbit/s, and queues up to 2 s",
    Kind.HOST_LATE: "its host's link is 120 ms late, give or take 60, both ways",
    Kind.REDIS_KILLED: "Valkey killed, back empty",
    Kind.REDIS_FROZEN: "Valkey stopped and continued",
}


def written(result: Result) -> str:
    """Return the tables."""
    return "\n\n".join((*_sums(result), *_kinds(result.schedules), *_findings(result.schedules)))


def _sums(result: Result) -> Iterator[str]:
    held, found = result.conditions, figures(result.schedules)
    worst = max((outcome.held_up for outcome in result.schedules), default=0.0)
    yield (
        f"`{held.command}`, {held.played}: {found['schedules']} schedules, {held.cores} cores, "
        f"{held.seconds / 60:.0f} minutes, Python {held.python}, a lease time of {held.lease_seconds:g} s. "
        f"The bench itself got its turns up to {worst:.2f} s late{_skipped(held)}."
    )
    names = ("acts", "calls", "takeovers", "takeover_p50_s", "takeover_max_s", "takeover_over_lease", *FOUND)
    yield table(("what", "figure"), [(f"`{name}`", _shown(found[name])) for name in names])


def _shown(figure: float | None) -> str:
    return "none" if figure is None else f"{figure:,}"


def _skipped(held: Conditions) -> str:
    return "".join(f"; skipped: `{kind}` ({why})" for kind, why in held.skipped.items())


def _kinds(outcomes: list[Outcome]) -> Iterator[str]:
    struck = [fault.kind for outcome in outcomes for fault in outcome.faults]
    yield table(
        ("fault", "what befalls a daemon", "times"), [(f"`{k}`", WHAT[k], str(struck.count(k))) for k in Kind]
    )


def _findings(outcomes: list[Outcome]) -> Iterator[str]:
    lines = [
        f"- seed {outcome.seed}, {what.replace('_', ' ')}: {text}"
        for outcome in outcomes
        for what in FOUND
        for text in getattr(outcome, what)
    ]
    yield "Found, and not explained away:" if lines else "Nothing else was found in these."
    if lines:
        yield "\n".join(lines)


def renewed(page: str, result: Result) -> str:
    """Return the page with its tables written anew."""
    return with_part(page, MARKS, written(result))


def main() -> None:
    """Write the page anew, where there are figures."""
    if FIGURES.exists():
        PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), read(FIGURES)), encoding="utf-8")


if __name__ == "__main__":
    main()
