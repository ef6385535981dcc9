"""What moves among 100,000 agents, against one `numpy.argpartition` over as many floats.

An engine's device has the prefixes of the 25,000 agents that are due first, two blocks each under one that all share,
and beside them room for what the next calls take, which the planner keeps free for these. In each round the clock moves
on by a step and 1,000 agents, those that were due, are due anew, as the last of all: they are demoted, as an engine
that can be told so does, so that their blocks go first. *Choosing* is the planner's part: which of all agents are
brought next, and into whose place. The *cycle* is a whole round of the loop: taking in what has changed, looking
(`snapshot.py`) and choosing. What it plans is published and not carried out (mode `observe`), so that no engine is
waited for. Between rounds, uncounted, the engine loads a thousand agents, as its feed would tell.

`argpartition` picks the nearest thousand of 100,000 random floats. It is the fastest known way to choose from dues
that lie in an array already, and knows nothing of ties, tiers, who uses what, and the order in which an engine evicts.
Both are timed by the process's CPU time: what else runs on the machine hits what is longer more often.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from time import process_time

import numpy as np

from bench.daemon.rig import open_stream, say, still
from bench.daemon.said import LARGEST_MESSAGE, key_of, messages, name_of
from scalesim_adapters.base import Capability, Cleared, EngineInfo, MemoryKind, Removed, Stored, Tier
from scalesim_client.codec import encode
from scalesim_client.events import ActivityStarted, Event, MemoryBound, StepAdvanced
from scalesim_daemon.app import connect_driver
from scalesim_daemon.blocks import BlockTree
from scalesim_daemon.plan import BlockCache
from scalesim_daemon.plan_blocks import plan_blocks
from scalesim_daemon.settings import EngineSettings
from scalesim_daemon.snapshot import Ranking, block_cache

AGENTS = 100_000
RESIDENT = 25_000
CHANGES = 1_000
BLOCK_TOKENS = 16
OWN_BLOCKS = 2
REPEATS = 5
SHARED_HASH = 0


def choose(rounds: int, seed: int) -> Iterator[Mapping[str, float]]:
    """Yield of each round how much longer choosing and a cycle take than one argpartition."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="choose-") as name:
        scene = _Scene(Path(name), seed)
        for _ in range(rounds):
            floats = rng.random(AGENTS)
            bare = median(_time_argpartition(floats) for _ in range(REPEATS))
            scene.change()
            began = process_time()
            scene.sidecar.cycle()
            cycle = process_time() - began
            began = process_time()
            cache = scene.look()
            looked = process_time()
            steps = plan_blocks(cache)
            chose = process_time() - looked
            assert steps and steps == list(scene.sidecar.plans[scene.view.name].blocks)
            scene.settle()
            yield {
                "select_over_argpartition": chose / bare,
                "cycle_over_argpartition": cycle / bare,
                "argpartition, ms": 1e3 * bare,
                "choosing, ms": 1e3 * chose,
                "looking again, ms": 1e3 * (looked - began),
                "cycle, ms": 1e3 * cycle,
            }


def _time_argpartition(floats: np.ndarray) -> float:
    began = process_time()
    np.argpartition(floats, CHANGES)
    return process_time() - began


class _Scene:
    """A daemon, and an engine of which it has heard all that a feed would tell."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._rng = Random(seed)
        self._now = 0
        self._seq = 0
        self.sidecar = still(folder)
        open_stream(self.sidecar)
        driver = connect_driver(self.sidecar, EngineSettings(url="http://127.0.0.1:9", name="engine"))
        self.sidecar.drivers["engine"] = driver
        self.view = driver.view
        self._know_the_engine()
        # Every step a thousand of them call: whose turn it is was drawn once.
        self._turns = self._rng.sample(range(AGENTS), AGENTS)
        self._say([StepAdvanced(now=0.0)])
        for agent in range(AGENTS):
            self._say_bound(agent)
        self._say([self._acts(agent, 1 + turn // CHANGES) for turn, agent in enumerate(self._turns)])
        self.sidecar.cycle()
        shared = tuple(self._tokens(0)[:BLOCK_TOKENS])
        self.view.happened(Stored((SHARED_HASH,), None, shared, BLOCK_TOKENS, Tier.DEVICE))
        for agent in self._turns[:RESIDENT]:
            self._store(agent)
        self.sidecar.cycle()

    def change(self) -> None:
        """A step passes: those who were due call, and then act until all others have had their turn."""
        self._now += 1
        self._say([StepAdvanced(now=float(self._now))])
        due = self._turn(self._now - 1)
        self._say([self._acts(agent, AGENTS // CHANGES) for agent in due])
        assert isinstance(self.view.tree, BlockTree)
        for agent in due:
            self.view.tree.demoted(key_of(agent))

    def look(self) -> BlockCache:
        """Return the snapshot that the cycle has taken, taken again."""
        ranking = Ranking(self.sidecar.population, (), self.sidecar.ticked_at)
        chunk = self.sidecar.settings.planner.chunk_tokens
        cache = block_cache(self.view, ranking, partial(self.sidecar.at_home, "engine"), chunk)
        assert cache is not None
        return cache

    def settle(self) -> None:
        """The engine has the prefixes of the next ones in the place of those who have called."""
        for gone in self._turn(self._now - 1):
            hashes = self._hashes(gone)[::-1]
            self.view.happened(Removed(hashes, Tier.DEVICE))
        for come in self._turn(self._now - 1 + RESIDENT // CHANGES):
            self._store(come)

    def _know_the_engine(self) -> None:
        able = Capability.LOAD | Capability.EVENTS
        info = EngineInfo(
            "emulated",
            version="0",
            incarnation="1",
            base_models=("base",),
            capabilities={MemoryKind.PREFIX_KV: able},
            block_size=BLOCK_TOKENS,
            device_blocks=1 + OWN_BLOCKS * RESIDENT + int(CHANGES * self.view.blocks_per_invocation),
        )
        self.view.probed(info)
        self.view.happened(Cleared())

    def _tokens(self, agent: int) -> list[int]:
        own = [agent] * (OWN_BLOCKS * BLOCK_TOKENS)
        return [1_000_000] * BLOCK_TOKENS + own

    def _hashes(self, agent: int) -> tuple[int, ...]:
        return tuple(1 + OWN_BLOCKS * agent + block for block in range(OWN_BLOCKS))

    def _store(self, agent: int) -> None:
        own = tuple(self._tokens(agent)[BLOCK_TOKENS:])
        event = Stored(self._hashes(agent), SHARED_HASH, own, BLOCK_TOKENS, Tier.DEVICE, key_of(agent))
        self.view.happened(event)

    def _turn(self, number: int) -> list[int]:
        """Return the agents whose turn it is in a step, the first being 0."""
        return self._turns[number * CHANGES % AGENTS :][:CHANGES]

    def _acts(self, agent: int, steps: int) -> Event:
        return ActivityStarted(agent=name_of(agent), until=float(self._now + steps))

    def _say_bound(self, agent: int) -> None:
        self._say([MemoryBound(agent=name_of(agent), token_ids=self._tokens(agent))])

    def _say(self, events: list[Event]) -> None:
        payloads = messages(events, LARGEST_MESSAGE) if len(events) > 1 else [encode(0.0, events)]
        for payload in payloads:
            self._seq += 1
            say(self.sidecar, payload, self._seq)
