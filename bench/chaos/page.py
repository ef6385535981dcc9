"""The part of docs/reliability.md that follows from docs/results/chaos.json: `python -m bench.chaos.page` writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.chaos.result import FOUND, Conditions, Result, read
from bench.chaos.run import Outcome
from bench.chaos.schedule import Kind
from bench.results.pages import with_part
from bench.results.tables import table

PAGE, FIGURES = Path("docs/reliability.md"), Path("docs/results/chaos.json")
MARKS = ("<!-- chaos: written by `make results` -->", "<!-- end of chaos -->")


PROMISES: Mapping[Kind, tuple[str, str]] = {
    Kind.DAEMON_KILLED: (
        "SIGKILL, started again",
        "The engine serves on. LoRA links lead to complete files.",
    ),
    Kind.DAEMON_FROZEN: ("SIGSTOP, SIGCONT", "As if it had been slow: it catches up."),
    Kind.REDIS_KILLED: ("the primary killed, back empty; or the daemon's own Valkey killed", "Told again."),
    Kind.REDIS_FROZEN: ("SIGSTOP, SIGCONT", "What changed meanwhile is written, the newest of each agent."),
    Kind.REDIS_FLUSHED: ("FLUSHALL, the connection stays", "Noticed within a second or two, and told again."),
    Kind.REDIS_FULL: ("no memory left: writes are refused", "What changed meanwhile is written."),
    Kind.REDIS_FAILED_OVER: ("the primary killed, its replica promoted", "The same over the new connection."),
    Kind.REDIS_DEMOTED: (
        "replica and primary change roles, connections to the old one stay",
        "A server that takes no writes is left, and the new one told again.",
    ),
    Kind.REDIS_SET_BACK: (
        "the primary killed, a replica promoted that had not followed for a while",
        "Told again, an operator's pins among it.",
    ),
    Kind.REDIS_SILENT: ("half-open connections", "Given up after 5 s, and connected anew."),
    Kind.ENGINE_KILLED: (
        "SIGKILL, another process at the same address",
        "The view begins anew; LoRAs come back.",
    ),
    Kind.ENGINE_RESTARTED: ("SIGTERM, started again", "The same."),
    Kind.ENGINE_FROZEN: ("SIGSTOP, SIGCONT", "Speculative work waits or is given up after its deadline."),
    Kind.ENGINE_HUNG: (
        "the server answers, but takes no step: no request ends",
        "The same.",
    ),
    Kind.ANSWERS_SILENT: ("accepted, never answered", "Deadlines; nothing is planned meanwhile."),
    Kind.ANSWERS_RESET: ("connections reset", "The same."),
    Kind.ANSWERS_FAILING: ("500, 502, 503, 404, 429", "Tried again, ever more seldom, at most 30 s later."),
    Kind.ANSWERS_GARBAGE: (
        "bodies that are no answers",
        "Taken for a failure; what was done all the same is found.",
    ),
    Kind.ANSWERS_CUT: ("half a body", "The same."),
    Kind.ANSWERS_LYING: ("other numbers, NaN among them", "The next true answer counts."),
    Kind.KV_SILENT: ("half-open KV events and replay", "Heartbeats end it; what was missed is replayed."),
    Kind.KV_CUT: ("KV events and replay cut off, again and again", "Replayed from where they stopped."),
    Kind.KV_LOST: ("batches of KV events lost", "A gap is replayed, also where the last one was lost."),
    Kind.FEED_SILENT: ("half-open feed", "The publisher says its state again."),
    Kind.FEED_CUT: ("feed cut off, again and again", "The same."),
    Kind.FEED_LOST: ("messages of the feed lost", "A gap asks for the state."),
    Kind.FEED_DOUBLED: ("messages doubled, late, out of order", "Taken once, or asked for again."),
    Kind.FEED_FLOODED: (
        "2,000 messages a second of another simulation, junk, 8 MiB",
        "The others are heard.",
    ),
    Kind.DISK_SLOW: ("each read, write and sync 20 to 300 ms late", "Everything is later."),
    Kind.DISK_FULL: (
        "no byte left for links, log, recording, Valkey",
        "What couldn't be kept is, once it can be.",
    ),
    Kind.SHM_FULL: ("no byte left for staged LoRAs", "LoRAs are loaded from where they lie."),
    Kind.CLOCK_FORWARD: (
        "the daemon's wall clock 2 s to 25 h ahead, and back",
        "Pins may end early; no more.",
    ),
    Kind.CLOCK_BACK: ("the same behind", "Pins may last longer; no more."),
}


def written(result: Result) -> str:
    """Return the tables."""
    return "\n\n".join((*_sums(result), *_kinds(result), *_findings(result)))


def _sums(result: Result) -> Iterator[str]:
    engines = _by_engine(result)
    yield "\n".join(
        f"- {engine}: {len(engines.get(engine, ()))} schedules, `{held.command}`, {held.at_once} at once, "
        f"commit {held.commit}, {held.played}, {held.cores} cores, {held.seconds / 60:.0f} minutes, "
        f"Python {held.python}{_skipped(held)}"
        for engine, held in result.conditions.items()
    )
    head = (
        "engine",
        "schedules",
        "calls",
        "failed",
        "excused",
        "early",
        "divergences",
        "over budget",
        "leaks",
        "unknown",
    )
    rows = [(engine, *_row(outcomes)) for engine, outcomes in engines.items()]
    yield table((*head, "settled after, worst"), rows)


def _skipped(held: Conditions) -> str:
    return "".join(f"; skipped: {kind} ({why})" for kind, why in held.skipped.items())


def _by_engine(result: Result) -> dict[str, list[Outcome]]:
    engines: dict[str, list[Outcome]] = {}
    for outcome in result.schedules:
        engines.setdefault(outcome.engine, []).append(outcome)
    return engines


def _row(outcomes: list[Outcome]) -> Iterator[str]:
    yield str(len(outcomes))
    yield f"{sum(outcome.calls for outcome in outcomes):,}"
    yield str(sum(len(outcome.failed_requests) for outcome in outcomes))
    yield f"{sum(outcome.excused for outcome in outcomes):,}"
    yield f"{sum(outcome.early for outcome in outcomes):,}"
    for found in FOUND[1:]:
        yield str(sum(len(getattr(outcome, found)) for outcome in outcomes))
    yield str(sum(outcome.unknown is not None for outcome in outcomes))
    yield f"{max(outcome.settled_after for outcome in outcomes):.0f} s"


def _kinds(result: Result) -> Iterator[str]:
    engines = _by_engine(result)
    drawn, felt = (
        {
            engine: Counter(
                fault.kind for outcome in outcomes for fault in outcome.faults if fault.felt >= least
            )
            for engine, outcomes in engines.items()
        }
        for least in (0, 1)
    )
    rows = [
        (
            f"`{kind}`",
            *PROMISES[kind],
            *(f"{felt[engine][kind]} of {drawn[engine][kind]}" for engine in engines),
        )
        for kind in Kind
    ]
    yield table(("fault", "what happens", "what is promised", *engines), rows)


def _findings(result: Result) -> Iterator[str]:
    lines = [
        f"- {outcome.engine}, seed {outcome.seed}, {what.replace('_', ' ')}: {text}"
        for outcome in result.schedules
        for what in FOUND
        for text in getattr(outcome, what)
    ]
    yield "Found, and not explained away:" if lines else "Nothing was found in these."
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
