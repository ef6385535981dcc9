"""Who drives an engine: one daemon at a time, by a lease in Redis. Pure: it is told the time and what Redis answers,
and says what to ask there and whether this daemon may act.

Engines check no token, so time keeps two daemons apart. Redis forgets a lease `ttl` after its last renewal. Its holder
stops `margin` earlier, counted from before that renewal was sent. Redis may forget too early, all of it or its last
writes: so who takes a lease waits for another `ttl` before it acts, in which whoever held it has surely stopped, and
then asks once more whether it still holds it. It needn't wait where the holder, at rest, put it in its own place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

# Shares of the lease time: expiry, waiting, and what asking takes, fit twice into it.
TTL = 0.8
MARGIN = 0.1
EVERY = 0.2
SLACK = 0.01


@dataclass(frozen=True, slots=True)
class Terms:
    """The lease time's parts in seconds: Redis forgets a lease `ttl` after a renewal, its holder stops `margin` before
    that, who takes it waits for `wait`, and all ask Redis `every` so often."""

    ttl: float
    margin: float
    wait: float
    every: float
    slack: float

    @classmethod
    def of(cls, seconds: float) -> Terms:
        """Return those of a lease time, in which takeover after a crash takes at most two."""
        ttl = TTL * seconds
        return cls(ttl, MARGIN * seconds, ttl, EVERY * seconds, SLACK * seconds)


class Verb(StrEnum):
    """What is asked of Redis. `LOOK` takes nothing but what was handed over to us, and says that we wait; `HEAR`
    changes nothing."""

    HEAR = "hear"
    LOOK = "look"
    TAKE = "take"
    RENEW = "renew"
    HAND_OVER = "hand over"


class Phase(StrEnum):
    """How this daemon stands to an engine: `HOLDS` alone acts."""

    HOLDS = "holds"
    WAITS = "waits"
    LEAVES = "leaves"
    WATCHES = "watches"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to Redis, `sent` at a time of this daemon's clock. `token` is the one that is held, or the highest
    that was heard of where none is."""

    verb: Verb
    token: int
    sent: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Who holds the lease now that the question was dealt with: nobody where `holder` is empty. It expires in `left`
    seconds, and was taken at Redis's wall time `since`. `ready`: it was handed over to who asks. `wanted`: a daemon
    that is nearer to the engine asks for it."""

    holder: str = ""
    token: int = 0
    left: float = 0.0
    since: float = 0.0
    ready: bool = False
    wanted: bool = False


class Lease:
    """One daemon's part in who drives one engine.

    `me` is the daemon's name, a slash, and what is unique to this process. Times are seconds of a clock that goes on
    while process and host are suspended, and gains or loses less than `margin` in `ttl`. A `standby` daemon gives the
    engine back to one that is none. Questions come one after the other: `answered` or `failed` follows each `ask`.
    After one that failed nothing is asked for until Redis is heard again.
    """

    def __init__(self, me: str, terms: Terms, *, standby: bool = False) -> None:
        self.me = me
        self.terms = terms
        self.standby = standby
        self.holder: Answer | None = None
        self.error: str | None = None
        self.taken = 0
        self.lost = 0
        self._token: int | None = None
        self._confirmed = False
        self._leaves = False
        self._deadline = -math.inf
        self._acts_from = math.inf
        self._ask_at = -math.inf
        self._theirs_until = -math.inf
        self._heard_of = 0
        self._held = 0

    # What the daemon does by

    def may_act(self, now: float) -> bool:
        """Whether this daemon may act on the engine now: to be asked right before each act."""
        return self._lasts(now) and self._confirmed and not self._leaves

    def phase(self, now: float) -> Phase:
        """Return how this daemon stands to the engine."""
        if self.may_act(now):
            return Phase.HOLDS
        if self._lasts(now):
            return Phase.LEAVES if self._leaves else Phase.WAITS
        return Phase.WATCHES if self.error is None else Phase.AWAY

    def why_not(self, now: float) -> str | None:
        """Return why this daemon doesn't act on the engine; None where it may."""
        match self.phase(now):
            case Phase.HOLDS:
                return None
            case Phase.WAITS:
                left = max(0.0, self._acts_from - now)
                return f"taken just now: in {left:.1f} s whoever held it before has surely stopped"
            case Phase.LEAVES:
                return "being handed over to its own daemon"
            case Phase.AWAY:
                return f"no lease: {self.error}"
        if holder := self.held_by(now):
            return f"held by {holder}"
        return "its lease is over, and is asked for anew" if self._held else "nobody holds it yet"

    def held_by(self, now: float) -> str:
        """Return the name of the daemon that holds the lease, as last heard of; empty where none does. What was held
        here until its time was over says nothing of now."""
        if self.holder is None or (self.holder.holder == self.me and not self._lasts(now)):
            return ""
        return self.holder.holder.partition("/")[0]

    @property
    def elsewhere(self) -> bool:
        """Whether another daemon holds the lease, as last heard of."""
        return self.holder is not None and self.holder.holder not in ("", self.me)

    @property
    def token(self) -> int | None:
        """The fencing token that acts go by; None where this daemon doesn't hold the lease."""
        return self._token

    @property
    def deadline(self) -> float:
        """Until when the last renewal lets this daemon act."""
        return self._deadline

    @property
    def ask_at(self) -> float:
        """When to ask next."""
        return self._ask_at

    @property
    def leaves(self) -> bool:
        """Whether the lease is to be handed over as soon as nothing is under way here. Where that just failed, Redis is
        heard first."""
        return self._leaves and self._token is not None and self.error is None

    # What is asked, and answered

    def ask(self, now: float) -> Ask | None:
        """Return what to ask Redis now, None where nothing is due."""
        self._lapse(now)
        if now < self._ask_at:
            return None
        if self.error is not None:
            # What can't be heard would still be done: a lease that nobody acts by, kept from others.
            return Ask(Verb.HEAR, self._heard_of, now)
        if self._token is not None:
            return Ask(Verb.RENEW, self._token, now)
        return Ask(Verb.LOOK if now < self._theirs_until else Verb.TAKE, self._heard_of, now)

    def hand_over(self, now: float) -> Ask | None:
        """Return what to send to put another in our place, None where there is nothing to give: from now on nothing may
        be done here, and nothing must be under way. Who still waits has nothing: somebody else may act yet."""
        self._lapse(now)
        if self._token is None or not self._confirmed:
            return None
        self._leaves = True
        return Ask(Verb.HAND_OVER, self._token, now)

    def answered(self, ask: Ask, answer: Answer, now: float) -> None:
        """Take in an answer. One that came too late says who holds the lease, and gives none."""
        self._lapse(now)
        self.error = None
        self._note(answer, now)
        match ask.verb:
            case Verb.RENEW if ask.token == self._token:
                self._renewed(ask, answer, now)
            case Verb.HAND_OVER if ask.token == self._token:
                self._token = None
                self._ask_at = now + self.terms.every
            case Verb.LOOK | Verb.TAKE if answer.holder == self.me:
                self._granted(ask, answer, now)
            case Verb.LOOK | Verb.TAKE:
                self._ask_at = min(now + self.terms.every, max(now, self._theirs_until))
            case _:
                self._ask_at = now

    def failed(self, ask: Ask, why: str, now: float) -> None:
        """Redis didn't answer: whether it did what it was asked isn't known."""
        self._lapse(now)
        self.error = why
        self._ask_at = now + self.terms.every / 4
        if self.elsewhere:
            # When Redis is back whoever held the lease asks again within that.
            self._theirs_until = max(self._theirs_until, now + 1.5 * self.terms.every)

    def _lasts(self, now: float) -> bool:
        """Whether the lease is held here, and its time isn't over."""
        return self._token is not None and now < self._deadline

    def _note(self, answer: Answer, now: float) -> None:
        self.holder = answer
        self._heard_of = max(self._heard_of, answer.token)
        if answer.holder == self.me:
            self._theirs_until = -math.inf
        elif answer.holder:
            # Who held it last comes first where Redis has forgotten it.
            self._theirs_until = now + answer.left + self.terms.slack

    def _granted(self, ask: Ask, answer: Answer, now: float) -> None:
        if answer.token <= self._held or (ask.verb is Verb.LOOK and not answer.ready):
            # Ours from before it was lost: it is taken anew.
            self._ask_at = now
            return
        self._token = self._held = answer.token
        self._confirmed, self._leaves = answer.ready, False
        self._acts_from = now if answer.ready else now + self.terms.wait
        self._deadline = ask.sent + self.terms.ttl - self.terms.margin
        self._ask_at = ask.sent + self.terms.every
        self.taken += 1
        self._lapse(now)

    def _renewed(self, ask: Ask, answer: Answer, now: float) -> None:
        if (answer.holder, answer.token) != (self.me, ask.token):
            self._lose(now)
            return
        self._deadline = ask.sent + self.terms.ttl - self.terms.margin
        self._confirmed = self._confirmed or ask.sent >= self._acts_from
        self._leaves = self._leaves or (self.standby and answer.wanted and self._confirmed)
        self._ask_at = ask.sent + self.terms.every
        if not self._confirmed:
            self._ask_at = min(self._ask_at, self._acts_from)

    def _lapse(self, now: float) -> None:
        """What was not renewed in time is lost, whatever Redis says later."""
        if self._token is not None and now >= self._deadline:
            self._lose(now)

    def _lose(self, now: float) -> None:
        self._token = None
        self._leaves = False
        self._ask_at = now
        self.lost += 1
