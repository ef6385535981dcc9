"""One line in the log per change of state, whatever part of the daemon it happened in and however long it lasts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog

from scalesim_daemon.fleet import lease_clock
from scalesim_daemon.fleet.lease import Lease, Phase
from scalesim_daemon.gate import Stream
from scalesim_daemon.plan import Action
from scalesim_daemon.records import Record
from scalesim_daemon.settings import RunMode
from scalesim_daemon.view import EngineView
from scalesim_estimators import Quality

log = structlog.get_logger(__name__)


class _Engine(NamedTuple):
    incarnation: str | None
    reachable: bool
    known: bool


class _Voice(NamedTuple):
    stream: Stream
    stale: bool
    admitted: Sequence[bool]


class Changelog:
    """Compares what is with what it said last. Nothing is said of what is as it was."""

    def __init__(self) -> None:
        self._mode: RunMode | None = None
        self._engines: dict[str, _Engine] = {}
        self._leases: dict[str, tuple[Phase, str]] = {}
        self._voices: dict[str, _Voice] = {}

    def note(
        self,
        mode: RunMode,
        views: Iterable[EngineView],
        streams: Mapping[str, tuple[Stream, bool]],
        qualities: Mapping[str, Quality],
    ) -> None:
        """Say what has changed of the mode, of engines, of streams and of the estimators that they admit."""
        if mode is not self._mode:
            log.info("mode", mode=mode, was=self._mode)
            self._mode = mode
        for view in views:
            self._note_engine(view)
            if view.lease is not None:
                self._note_lease(view.name, view.lease)
        for source in self._voices.keys() - streams.keys():
            log.info("stream closed", source=source, simulation=self._voices.pop(source).stream.simulation)
        for source, (stream, stale) in streams.items():
            known, quality = self._voices.get(source), qualities.get(source)
            # A verdict puts a new list in the place of the old one.
            admitted = () if quality is None else quality.admitted
            if known is None or known.stream != stream or known.stale != stale:
                self._note_stream(known, stream, stale)
            elif known.admitted is admitted:
                continue
            if known is not None and known.stream == stream and quality is not None:
                self._note_verdict(source, known.admitted, quality)
            self._voices[source] = _Voice(stream, stale, admitted)

    def acted(self, record: Record) -> None:
        """A step has ended. What only refreshed memory, or was let go, is no change; what failed says so itself."""
        step = record.step
        if record.outcome == "failed":
            return
        say = log.info if record.outcome == "done" and step.action is not Action.TOUCH else log.debug
        say(
            f"step {record.outcome.replace('_', ' ')}",
            engine=record.engine,
            action=step.action,
            kind=step.kind,
            key=step.key,
            seconds=round(record.seconds, 3),
            why=step.reason if record.outcome == "done" else record.result,
        )

    def _note_engine(self, view: EngineView) -> None:
        before = self._engines.get(view.name)
        now = _Engine(view.info.incarnation if view.info else None, view.reachable, view.known)
        if not view.asked or now == before:
            return
        if not now.reachable:
            # What else has changed is said when it answers again.
            if before is None or before.reachable:
                log.warning("engine does not answer", engine=view.name, error=view.error)
            self._engines[view.name] = now if before is None else before._replace(reachable=False)
            return
        self._engines[view.name] = now
        if before is None or before.incarnation != now.incarnation:
            self._say_found(view)
            return
        if not before.reachable:
            log.info("engine answers again", engine=view.name)
        if now.known and not before.known:
            log.info("engine's cache is known", engine=view.name, blocks=view.capacity)
        elif before.known and not now.known:
            log.warning("engine's cache is not known", engine=view.name, why=view.unknown_why)

    def _note_lease(self, engine: str, lease: Lease) -> None:
        now = lease_clock.now()
        phase, holder = lease.phase(now), lease.held_by(now)
        if self._leases.get(engine) == (phase, holder):
            return
        self._leases[engine] = phase, holder
        if phase is Phase.HOLDS:
            log.info("engine is driven from here", engine=engine, token=lease.token)
        else:
            say = log.warning if phase is Phase.AWAY else log.info
            say("engine is not driven from here", engine=engine, why=lease.why_not(now))

    def _say_found(self, view: EngineView) -> None:
        assert view.info is not None
        log.info(
            "engine found",
            engine=view.name,
            kind=view.info.engine,
            version=view.info.version,
            blocks=view.capacity,
            restarts=view.restarts,
            cache="known" if view.known else view.unknown_why,
        )

    def _note_stream(self, before: _Voice | None, stream: Stream, stale: bool) -> None:
        if before is None or before.stream != stream:
            log.info(
                "stream opened",
                source=stream.source,
                simulation=stream.simulation,
                incarnation=stream.incarnation,
                clock=stream.clock,
            )
        if stale:
            remedy = "its next complete state.snapshot heals it"
            log.warning("stream stale", source=stream.source, remedy=remedy)
        elif before is not None and before.stream == stream:
            log.info("stream healed", source=stream.source)

    def _note_verdict(self, source: str, before: Sequence[bool], quality: Quality) -> None:
        for name, was, now in zip(quality.names, before, quality.admitted, strict=False):
            if was != now:
                log.info(f"estimator {'admitted' if now else 'dropped'}", source=source, estimator=name)
