"""The gate before all state: order, duplicates, gaps and restarts, for each source of events. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from itertools import chain

from msgspec import Struct

from scalesim_client.events import (
    SCHEMA_VERSION,
    ClockKind,
    Event,
    StateSnapshot,
    StreamClosed,
    StreamOpened,
)
from scalesim_client.sequence import Arrival, Sequence
from scalesim_daemon.wire import Refused, parse, parse_all, said_at

MAX_COUNTED_NAMES = 100
MAX_SOURCES = 10_000
"""Sources that may be open at a time: who names ever new ones can't fill the memory."""
SILENT_SECONDS = 120.0
"""A publisher says its state four times meanwhile: who is silent for so long has no connection any more, or hangs."""
STALE_SECONDS = 600.0
"""So long after its last word a stream of which something is missing counts as closed: what it said may be wrong, and
would be asked for again."""
GONE_SECONDS = 24 * 3600.0
"""So long after its last word any stream does: as long as Redis keeps what a closed one said."""
_SWEEP_SECONDS = 1.0
_FULL = f"{MAX_SOURCES} sources are open, which is the most: close some"
_NEXT = Arrival.NEXT
_OF_STREAMS = frozenset({StreamOpened, StreamClosed, StateSnapshot})
"""Events about a stream itself; all others are said of its agents and its clock."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Who speaks: one incarnation of one source of a simulation, and the clock that its times are in. `teller` is the
    daemon that hears it, empty where that is this one."""

    source: str
    simulation: str
    incarnation: int
    clock: ClockKind
    teller: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """A new incarnation of a source: what an older one said is void."""

    stream: Stream


class Said(Struct, frozen=True):
    """Events that hold on top of what the stream said before."""

    stream: Stream
    events: Seq[Event]


@dataclass(frozen=True, slots=True)
class Restated:
    """A complete snapshot: it replaces all that the stream said. `now` is its clock value, where it has one.

    Each event comes with the clock value at which it was said, None where that is the snapshot's own.
    """

    stream: Stream
    events: Seq[tuple[Event, float | None]]
    now: float | None


@dataclass(frozen=True, slots=True)
class Closed:
    """The stream has ended."""

    stream: Stream


Admitted = Opened | Said | Restated | Closed


def joined(admitted: Iterable[Admitted]) -> Iterator[Admitted]:
    """Yield what was admitted; what a stream says in several messages, one after the other, as if it were one."""
    said: list[Said] = []
    for item in admitted:
        if said and (type(item) is not Said or item.stream is not said[0].stream):
            yield _as_one(said)
            said = []
        if type(item) is Said:
            said.append(item)
        else:
            yield item
    if said:
        yield _as_one(said)


def _as_one(said: Seq[Said]) -> Said:
    if len(said) == 1:
        return said[0]
    return Said(said[0].stream, list(chain.from_iterable([item.events for item in said])))


class Verdict(Struct, frozen=True):
    """What the gate made of one message: what to apply, what was refused, and what to tell the sender.

    `accepted` counts the events that were neither refused nor dropped with the whole message."""

    admitted: Seq[Admitted] = ()
    refused: Seq[Refused] = ()
    welcome: bool = False
    resync: bool = False
    error: str | None = None
    last_seq: int = -1
    accepted: int = 0


@dataclass(slots=True)
class _Source:
    """`parts` of a snapshot that isn't complete, and what was said `since` the first of them."""

    stream: Stream
    sequence: Sequence = field(default_factory=Sequence)
    stale: bool = False
    parts: list[StateSnapshot] = field(default_factory=list)
    since: list[Event] = field(default_factory=list)
    peer: bytes | None = None
    heard: float = 0.0

    def lost(self) -> None:
        """Something was missed: the view is stale, and a snapshot that was coming in can't be trusted."""
        self.stale = True
        self.parts.clear()
        self.since.clear()


class Gate:
    """Admits messages source by source.

    A source is known from its `stream.opened` on; before that it is asked to resync. A lower incarnation than
    the known one is fenced off. After a gap the source counts as stale until its next complete snapshot. The
    parts of a snapshot come in order; together they hold as of the first one, so that what is said between
    them comes on top. Time is what `tick` says it is, `now` until it has.
    """

    def __init__(self, now: float = 0.0) -> None:
        # In the order in which they were last heard.
        self._sources: dict[str, _Source] = {}
        # Who spoke without numbers before it was let go.
        self._let_go_of: dict[str, Stream] = {}
        self._now = self._swept = now
        self._latest: _Source | None = None
        self.counts: Counter[str] = Counter()
        self.unknown_types: Counter[str] = Counter()

    def streams(self) -> dict[str, tuple[Stream, bool]]:
        """Return each source's stream and whether its view is stale."""
        return {name: (source.stream, source.stale) for name, source in self._sources.items()}

    def forget(self, topic: str) -> Closed | None:
        """A source speaks through another daemon now. Return the end of its stream here, None where there is none. Who
        still speaks here is asked to open it anew."""
        source = self._sources.pop(topic, None)
        return None if source is None else Closed(source.stream)

    def tick(self, now: float) -> Seq[Closed]:
        """It is `now`, in seconds of any clock. Return whose stream counts as closed, since it has been silent for
        long: one at a time, for it takes a while to let go of all that one has said. Who speaks again is asked to open
        its stream."""
        self._now = now
        if now - self._swept < _SWEEP_SECONDS:
            return ()
        gone = next(self._gone(), None)
        if gone is None:
            self._swept = now
            return ()
        return (self._let_go(gone),)

    def _let_go(self, topic: str) -> Closed:
        """End a stream whose source hasn't said that it ends. One without numbers is taken at its word when it speaks
        again, and may not open its stream anew: who it is stays known, as long as there are not many."""
        source = self._sources.pop(topic)
        if source.sequence.last < 0 and source.stream != _unopened(topic):
            self._let_go_of[topic] = source.stream
            if len(self._let_go_of) > MAX_SOURCES:
                del self._let_go_of[next(iter(self._let_go_of))]
        return Closed(source.stream)

    def _gone(self) -> Iterator[str]:
        for topic, source in self._sources.items():
            silent = self._now - source.heard
            if silent < STALE_SECONDS:
                return
            missed = (
                source.stale and source.sequence.last >= 0
            )  # Without numbers nothing is known to be missing.
            if missed or silent >= GONE_SECONDS:
                yield topic

    def admit(self, topic: str, seq: int | None, raws: Seq[object], peer: bytes | None = None) -> Verdict:
        """Judge one message of the source `topic`, of maps as on the wire: see `judge`."""
        events, refused = parse_all(raws)
        for refusal in refused:
            self._count_refusal(refusal)
        if _OF_STREAMS.isdisjoint(map(type, events)):
            return self.judge(topic, seq, events, refused, peer)
        if not isinstance(events[0], StreamOpened):
            return self.judge(topic, seq, events, refused, peer, of_streams=True)
        self.counts["events"] += len(events)
        verdict = self._open(topic, seq, events[0], events[1:], refused)
        if verdict.error is None and topic in self._sources:
            self._sources[topic].peer = peer
            self._heard(topic)
        return verdict

    def judge(
        self,
        topic: str,
        seq: int | None,
        events: Seq[Event],
        refused: Seq[Refused] = (),
        peer: bytes | None = None,
        *,
        of_streams: bool = False,
    ) -> Verdict:
        """Judge one message of the source `topic` that doesn't open it, and in which some events were `refused`
        already; `seq` is None where the door has no numbering. `peer` is the connection that it came by: a source
        speaks through the one that opened it. Some events may be `of_streams` themselves."""
        self.counts["events"] += len(events)
        source = self._sources.get(topic)
        if source is not None and source.peer != peer and source.peer is not None:
            self.counts["fenced"] += 1
            return Verdict(refused=refused, resync=True)
        forgotten: list[Admitted] = []
        if source is None and seq is None:
            room = self._make_room()
            if room is None:
                self.counts["unopened"] += 1
                return Verdict(refused=[*refused, Refused("stream.opened", _FULL)], resync=True)
            forgotten = room
            before = self._let_go_of.pop(topic, None)
            source = self._sources[topic] = _Source(before or _unopened(topic), stale=before is not None)
        if source is None:
            self.counts["unopened"] += 1
            return Verdict(refused=refused, resync=True)
        if source is self._latest:
            source.heard = self._now
        else:
            self._heard(topic)
        arrival = _NEXT if seq is None else source.sequence.admit(seq)
        if arrival is not _NEXT:
            if arrival is Arrival.DUPLICATE:
                self.counts["duplicates"] += 1
                return Verdict(last_seq=source.sequence.last)
            self.counts["gaps"] += 1
            source.lost()
        if of_streams or source.parts or not events:
            admitted = self._sort(source, events)
        else:
            admitted = [Said(source.stream, events)]
        if forgotten:
            admitted = [*forgotten, *admitted]
        return Verdict(admitted, refused, False, source.stale, None, source.sequence.last, len(events))

    def _heard(self, topic: str) -> None:
        source = self._latest = self._sources[topic] = self._sources.pop(topic)
        source.heard = self._now

    def _make_room(self) -> list[Admitted] | None:
        """Return who goes so that another source can come: nobody while there is room, and None where nobody can go.
        Who has no connection, a stale view, or nothing to say for long loses little and may come back: of these the
        longest silent goes."""
        if len(self._sources) < MAX_SOURCES:
            return []
        for topic, source in self._sources.items():
            if source.peer is None or source.stale or self._now - source.heard >= SILENT_SECONDS:
                return [self._let_go(topic)]
        return None

    def _open(
        self, topic: str, seq: int | None, opened: StreamOpened, rest: Seq[Event], refused: Seq[Refused]
    ) -> Verdict:
        if opened.schema_version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            self.counts["refused_versions"] += 1
            reason = f"schema version {opened.schema_version[:16]} is not supported, only {SCHEMA_VERSION}"
            return Verdict(refused=[*refused, Refused(opened.type, reason)], welcome=True, error=reason)
        known = self._sources.get(topic)
        if known is not None and opened.incarnation < known.stream.incarnation:
            self.counts["fenced"] += 1
            reason = f"incarnation {opened.incarnation} of {topic!r} is older than {known.stream.incarnation}"
            return Verdict(refused=[*refused, Refused(opened.type, reason)], welcome=True, error=reason)
        forgotten = self._make_room() if known is None else []
        if forgotten is None:
            self.counts["unopened"] += 1
            return Verdict(refused=[*refused, Refused(opened.type, _FULL)], welcome=True, error=_FULL)
        stream = Stream(topic, opened.simulation, opened.incarnation, opened.clock)
        if known is not None and stream == known.stream:
            # The same incarnation knocks again: what it said holds, what was lost meanwhile is asked for.
            known.lost()
            if seq is not None and known.sequence.admit(seq) is Arrival.DUPLICATE:
                self.counts["duplicates"] += 1
                return Verdict(refused=refused, welcome=True, resync=True, last_seq=known.sequence.last)
            admitted = self._sort(known, rest)
            return Verdict(
                admitted, refused, True, known.stale, last_seq=known.sequence.last, accepted=1 + len(rest)
            )
        self._let_go_of.pop(topic, None)
        source = self._sources[topic] = _Source(stream, Sequence(-1 if seq is None else seq))
        # A source that opens at a later number has said things that this daemon never heard.
        source.stale = bool(seq)
        admitted = [*forgotten, Opened(stream), *self._sort(source, rest)]
        return Verdict(
            admitted, refused, True, source.stale, last_seq=source.sequence.last, accepted=1 + len(rest)
        )

    def _sort(self, source: _Source, events: Seq[Event]) -> list[Admitted]:
        admitted: list[Admitted] = []
        said: list[Event] = []
        for event in events:
            if isinstance(event, StateSnapshot):
                if self._collect(source, event):
                    admitted, said = [self._restate(source)], source.since
                    source.parts, source.since = [], []
            elif isinstance(event, StreamClosed):
                if said:
                    admitted.append(Said(source.stream, said))
                self._sources.pop(source.stream.source, None)
                return [*admitted, Closed(source.stream)]
            elif not isinstance(event, StreamOpened):
                said.append(event)
                if source.parts:
                    source.since.append(event)
        if said:
            admitted.append(Said(source.stream, said))
        return admitted

    def _collect(self, source: _Source, snapshot: StateSnapshot) -> bool:
        """Take in a part; return whether the snapshot is complete."""
        if snapshot.part == 0:
            source.parts, source.since = [], []
        elif len(source.parts) != snapshot.part or source.parts[0].of != snapshot.of:
            source.lost()
            return False
        source.parts.append(snapshot)
        return len(source.parts) == snapshot.of

    def _restate(self, source: _Source) -> Restated:
        source.stale = False
        events: list[tuple[Event, float | None]] = []
        for raw in (raw for part in source.parts for raw in part.events):
            event = parse(raw)
            if isinstance(event, Refused):
                self._count_refusal(event)
            elif not isinstance(event, (StreamOpened, StreamClosed, StateSnapshot)):
                events.append((event, said_at(raw)))
        return Restated(source.stream, events, source.parts[0].now)

    def _count_refusal(self, refusal: Refused) -> None:
        if not refusal.unknown:
            self.counts["malformed"] += 1
            return
        self.counts["unknown"] += 1
        known = refusal.type in self.unknown_types or len(self.unknown_types) < MAX_COUNTED_NAMES
        self.unknown_types[refusal.type if known else "other"] += 1


def _unopened(topic: str) -> Stream:
    """Return what a source is taken for that speaks without numbers and hasn't opened its stream."""
    return Stream(topic, topic.replace("/", "-"), 0, "wall_seconds")
