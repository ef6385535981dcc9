"""What simulations say to the daemon in these measurements, as bytes, and as a process that sends them.

`python -m bench.daemon.said flood|paced ...` connects to an endpoint that need not be bound yet. A flood is handed to
ZeroMQ as a whole, `sent` is printed, and whoever binds the endpoint afterwards finds all of it waiting: how fast it is
taken in is the reader's doing alone. What is paced is sent at so many events a second, one a message, and among them
agents are woken; when each of these was sent is printed at the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import zmq

from scalesim_client.codec import encode, join_snapshot, pack_event, pack_frames
from scalesim_client.events import (
    ActivityStarted,
    AgentWoken,
    Event,
    InvocationFinished,
    InvocationStarted,
    MemoryBound,
    StepAdvanced,
    StreamOpened,
)

SIMULATION = "village"
LONGEST_ACTIVITY = 100
LARGEST_MESSAGE = 1000
URGENT_PREFIX_TOKENS = 64
BURST_SECONDS = 0.001


def name_of(agent: int) -> str:
    """Return an agent's name, of the same length for all."""
    return f"agent{agent:07d}"


def key_of(agent: int) -> str:
    """Return the key by which the daemon knows an agent."""
    return f"{SIMULATION}/{name_of(agent)}"


def opening(incarnation: int = 1) -> StreamOpened:
    """Return what a stream begins with."""
    return StreamOpened(simulation=SIMULATION, source=SIMULATION, incarnation=incarnation, clock="step")


def call(agent: int, acts_for: int) -> list[Event]:
    """Return what is said of one call: that it began and ended, and how long the agent acts by itself then."""
    name = name_of(agent)
    return [
        InvocationStarted(agent=name),
        InvocationFinished(agent=name),
        ActivityStarted(agent=name, for_=acts_for),
    ]


def messages(events: list[Event], per_message: int) -> list[bytes]:
    """Pack events into payloads of so many each."""
    return [encode(0.0, events[at : at + per_message]) for at in range(0, len(events), per_message)]


def activities(agents: int, count: int, seed: int) -> list[Event]:
    """Return so many events of which each gives one of the agents another due."""
    rng = Random(seed)
    return [
        ActivityStarted(agent=name_of(rng.randrange(agents)), for_=rng.randint(1, LONGEST_ACTIVITY))
        for _ in range(count)
    ]


def snapshot(agents: int, seed: int) -> list[bytes]:
    """Return the parts of a simulation's whole state: every agent acts by itself for a while."""
    rng = Random(seed)
    packed = [
        pack_event(ActivityStarted(agent=name_of(agent), until=rng.randint(1, LONGEST_ACTIVITY)))
        for agent in range(agents)
    ]
    lots = [packed[at : at + LARGEST_MESSAGE] for at in range(0, agents, LARGEST_MESSAGE)]
    return [join_snapshot(0.0, part, len(lots), lot, 0.0) for part, lot in enumerate(lots)]


@contextmanager
def speaking(kind: str, endpoint: str, *numbers: int) -> Iterator[subprocess.Popen[str]]:
    """Run this module as a process with these arguments, and end it. A flood is under way on entry."""
    command = [sys.executable, "-m", "bench.daemon.said", kind, endpoint, *map(str, numbers)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        if kind != "paced":
            process.stdout.readline()
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def main() -> None:
    """Send what the command line asks for."""
    kind, endpoint, *numbers = sys.argv[1:]
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(endpoint)
    match kind, *map(int, numbers):
        case "flood", agents, count, per_message, seed:
            _flood(socket, messages(activities(agents, count, seed), per_message))
        case "state", incarnation, agents, seed:
            _flood(socket, snapshot(agents, seed), incarnation)
        case "paced", agents, per_second, urgent, every_ms, seed:
            _pace(socket, agents, per_second, urgent, every_ms / 1000, seed)
    sys.stdin.read()
    context.destroy()


def _flood(socket: zmq.Socket[bytes], payloads: list[bytes], incarnation: int = 1) -> None:
    for seq, payload in enumerate([encode(0.0, [opening(incarnation)]), *payloads]):
        socket.send_multipart(pack_frames(SIMULATION, seq, payload))
    print("sent", flush=True)


def _pace(
    socket: zmq.Socket[bytes], agents: int, per_second: int, urgent: int, every: float, seed: int
) -> None:
    """Agents from 0 on act; those after them are bound to a prefix each, and woken one after the other."""
    rng = Random(seed)
    waking = range(agents, agents + urgent)
    seq = 0

    def say(*events: Event) -> None:
        nonlocal seq
        socket.send_multipart(pack_frames(SIMULATION, seq, encode(0.0, events)))
        seq += 1

    say(opening())
    say(StepAdvanced(now=0.0))
    for agent in waking:
        say(MemoryBound(agent=name_of(agent), token_ids=[agent] * URGENT_PREFIX_TOKENS))
    ordinary = [encode(0.0, [event]) for event in activities(agents, 4 * agents, seed)]
    sys.stdin.readline()
    started = time.monotonic()
    sent_at: dict[str, int] = {}
    sent, woken = 0, 0
    wakes = [started + 1.0 + (number + rng.random()) * every for number in range(urgent)]
    while woken < urgent or time.monotonic() < wakes[-1] + 0.5:
        now = time.monotonic()
        if woken < urgent and now >= wakes[woken]:
            sent_at[key_of(waking[woken])] = time.monotonic_ns()
            say(AgentWoken(agent=name_of(waking[woken])))
            woken += 1
        for _ in range(int((now - started) * per_second) - sent):
            socket.send_multipart(pack_frames(SIMULATION, seq, ordinary[sent % len(ordinary)]))
            seq, sent = seq + 1, sent + 1
        time.sleep(BURST_SECONDS)
    print(json.dumps(sent_at), flush=True)


if __name__ == "__main__":
    main()
