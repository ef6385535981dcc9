"""What an event costs with a million agents, against what it costs with a thousand.

An agent's call is three events: it began, it ended, and the agent acts by itself for a while. So estimates are scored
and what is learned of calls is learned, too; the agents call one after the other, a thousand in a step. All pass the
decoder, the gate, the estimators and the board, a hundred a message; both populations live in the same process, and
their rounds alternate. The bare loop here is the same loop over the smaller population, and time is the process's CPU
time. The garbage collector looks through everything as seldom as in a daemon: for a thousandth of the time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from time import process_time

from bench.daemon.rig import open_stream, say, still
from bench.daemon.said import LARGEST_MESSAGE, call, messages
from scalesim_client.codec import encode
from scalesim_client.events import Event, StepAdvanced
from scalesim_daemon.collector import collected_seldom
from scalesim_daemon.loop import Sidecar

FEW, MANY = 1_000, 1_000_000
STEP = 1_000
CALLS = 5_000
PER_MESSAGE = 100


def growth(rounds: int, seed: int) -> Iterator[Mapping[str, float]]:
    """Yield of each round how much more an event costs among many agents."""
    with ExitStack() as stack:
        stack.enter_context(collected_seldom())
        places = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in (FEW, MANY)]
        few, many = _Life(still(places[0]), FEW), _Life(still(places[1]), MANY)
        few.live(10 * FEW, LARGEST_MESSAGE)
        many.live(MANY, LARGEST_MESSAGE)
        for _ in range(rounds):
            short, long = few.live(CALLS, PER_MESSAGE), many.live(CALLS, PER_MESSAGE)
            yield {
                "event_cost_growth_1k_to_1m": long / short,
                "us per event among 1,000": 1e6 * short,
                "us per event among 1,000,000": 1e6 * long,
            }


class _Life:
    """A population, and whose turn it is."""

    def __init__(self, sidecar: Sidecar, agents: int) -> None:
        self._sidecar = sidecar
        self._turns = self._call_in_turn(agents)
        self._seq = 0
        self._now = 0
        open_stream(sidecar)

    def live(self, calls: int, per_message: int) -> float:
        """Let so many agents call, in steps; return the seconds per event."""
        seconds, events = 0.0, 0
        for _ in range(0, calls, STEP):
            self._now += 1
            said = [event for turn in islice(self._turns, STEP) for event in turn]
            payloads = [encode(0.0, [StepAdvanced(now=self._now)]), *messages(said, per_message)]
            began = process_time()
            for payload in payloads:
                self._seq += 1
                say(self._sidecar, payload, self._seq)
            seconds += process_time() - began
            events += len(said) + 1
            self._sidecar.cycle()
        return seconds / events

    @staticmethod
    def _call_in_turn(agents: int) -> Iterator[list[Event]]:
        while True:
            for agent in range(agents):
                yield call(agent, max(1, agents // STEP))
