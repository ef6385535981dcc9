"""Fifty LoRAs on an engine with room for a few, random calls, and a daemon that is killed: no request fails."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.rig.daemon import DaemonProcess
from scalesim_adapters.lorafiles import WEIGHTS
from scalesim_client import Publisher

SLOTS = 2
HOST_PLACES = 4
STAGED = 10
STEPS = 80
MOST_CALLS = 3
PRIVATE_TOKENS = 32
MOST_TOKENS = 64
WITHIN = 20.0
SETTLES_WITHIN = 1.0
SHADOW_AGREES = 0.85


@dataclass(slots=True)
class Scene:
    """`originals` are the LoRAs' directories; an agent's name is that of its LoRA. `failures` has what went wrong.
    `held` asks the engine itself which LoRAs are in its host places."""

    engine: str
    originals: Sequence[Path]
    folder: Path
    held: Callable[[], Awaitable[set[str]]]
    seed: int = 1
    steps: int = STEPS
    failures: list[str] = field(default_factory=list)
    calls: int = 0
    in_slot: int = 0
    compared: int = 0
    agreed: int = 0

    @property
    def names(self) -> list[str]:
        """All LoRAs."""
        return [path.name for path in self.originals]

    def private_tokens(self, name: str) -> list[int]:
        """Return how each of an agent's prompts begins."""
        return [100 + (self.names.index(name) * 37 + place) % 3000 for place in range(PRIVATE_TOKENS)]

    def sidecar(self) -> DaemonProcess:
        """Return a daemon to start whose staging budget holds `STAGED` of the LoRAs."""
        size = sum(file.stat().st_size for file in self.originals[0].iterdir())
        return DaemonProcess(
            self.folder,
            self.engine,
            staging_bytes=STAGED * size,
            lora_slots=SLOTS,
            lora_host_places=HOST_PLACES,
        )

    def schedule(self) -> list[list[str]]:
        """Return who calls in each step."""
        rng = random.Random(self.seed)
        return [rng.sample(self.names, rng.randint(1, MOST_CALLS)) for _ in range(self.steps)]

    async def register(self, publisher: Publisher, api: httpx.AsyncClient) -> None:
        """Bind every agent to its LoRA, and wait until the engine knows all names."""
        for path in self.originals:
            publisher.bind(
                path.name, lora=str(path), lora_name=path.name, token_ids=self.private_tokens(path.name)
            )

        async def registered() -> bool:
            return (await loras(api))["registered"] == sorted(self.names)

        await until(registered)

    async def live(self, publisher: Publisher, api: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
        """Announce each agent's next call; in half of the steps the calls come at once, else when the nearest are
        there."""
        schedule, rng = self.schedule(), random.Random(self.seed)
        for agent in self.names:
            announce(publisher, schedule, agent, after=-1)
        for step, callers in enumerate(schedule):
            publisher.step(float(step))
            if rng.random() < 0.5:
                await until(lambda callers=callers: self._near(api, callers))
                await self._compare(api)
            device = (await loras(api))["device"]
            self.in_slot += sum(name in device for name in callers)
            await asyncio.gather(*(self._call(publisher, client, name, rng) for name in callers))
            for agent in callers:
                announce(publisher, schedule, agent, after=step)

    async def _near(self, api: httpx.AsyncClient, callers: list[str]) -> bool:
        device = (await loras(api))["device"]
        return sum(name in device for name in callers) == min(len(callers), SLOTS)

    async def _compare(self, api: httpx.AsyncClient) -> None:
        """Note whether the daemon and the engine come to mean the same LoRAs while nobody calls. Stock engines don't
        tell where a LoRA is, and which of two overlapping calls used its LoRA last can't be known from outside: there
        the shadow may be off until the next call."""

        async def agree() -> bool:
            return set((await loras(api))["host"]) == await self.held()

        self.compared += 1
        with suppress(NeverHeld):
            await until(agree, SETTLES_WITHIN)
            self.agreed += 1

    async def _call(
        self, publisher: Publisher, client: httpx.AsyncClient, name: str, rng: random.Random
    ) -> None:
        with publisher.invocation(name):
            await self.ask(client, name, rng)

    async def ask(self, client: httpx.AsyncClient, name: str, rng: random.Random) -> None:
        """Send one request of an agent: its own tokens and some that are new."""
        fresh = rng.randint(1, MOST_TOKENS - PRIVATE_TOKENS)
        prompt = self.private_tokens(name) + [rng.randrange(100, 3000) for _ in range(fresh)]
        body = {"model": name, "prompt": prompt, "max_tokens": 4, "session_id": f"scene/{name}"}
        self.calls += 1
        try:
            answer = await client.post("/v1/completions", json=body)
        except httpx.HTTPError as error:
            self.failures.append(f"{name}: {error!r}")
            return
        if answer.status_code != 200:
            self.failures.append(f"{name}: {answer.status_code} {answer.text[:200]}")

    async def ask_all(self, client: httpx.AsyncClient) -> None:
        """Request every LoRA, as many at a time as there are slots and one more."""
        rng = random.Random(self.seed)
        order = rng.sample(self.names, len(self.names))
        for start in range(0, len(order), MOST_CALLS):
            await asyncio.gather(*(self.ask(client, name, rng) for name in order[start : start + MOST_CALLS]))

    def links(self) -> dict[str, Path]:
        """Return what each link resolves to, by the link's name."""
        return {path.name: path.resolve() for path in (self.folder / "links").iterdir() if path.is_symlink()}

    def remove_unlinked(self) -> None:
        """Remove every staged directory that no link resolves to."""
        kept = set(self.links().values())
        for part in (self.folder / "staging").iterdir():
            for copy in [part] if part.suffix == ".part" else list(part.iterdir()):
                if copy not in kept:
                    shutil.rmtree(copy)


def announce(publisher: Publisher, schedule: list[list[str]], agent: str, *, after: int) -> None:
    """Say when the agent calls next."""
    steps: Iterator[int] = (
        step for step, callers in enumerate(schedule) if step > after and agent in callers
    )
    publisher.activity(agent, until=float(next(steps, STEPS + 100)))


async def loras(api: httpx.AsyncClient) -> dict[str, Any]:
    """Return where the daemon takes the engine's LoRAs to be."""
    state: dict[str, Any] = (await api.get("/v1/engines")).raise_for_status().json()["engines"][0]["loras"]
    return state


class NeverHeld(AssertionError):
    """What was waited for did not come."""


async def until(holds: Callable[[], Awaitable[bool]], within: float = WITHIN) -> None:
    """Ask again and again until it holds. Raises `NeverHeld`."""
    deadline = time.monotonic() + within
    while not await holds():
        if time.monotonic() > deadline:
            raise NeverHeld(f"it did not come to hold within {within:g} s")
        await asyncio.sleep(0.02)


def failed_steps(log: Path) -> str:
    """Return what the daemon logged of steps that failed."""
    return "\n".join(line for line in log.read_text(errors="replace").splitlines() if "step failed" in line)


async def check_staged(scene: Scene) -> None:
    """All links lead to whole LoRAs, some to copies. A daemon that lives may change one meanwhile."""
    links = scene.links()
    assert len(links) == len(scene.names)
    assert all((scene.folder / "links" / name / WEIGHTS[0]).is_file() for name in links)
    copies = [target for target in links.values() if (scene.folder / "staging") in target.parents]
    assert 0 < len(copies) <= STAGED


async def play(scene: Scene) -> None:
    """Play the whole scene and check what must hold."""
    # An engine closes connections that are idle for seconds: a request sent meanwhile is lost through nobody's fault.
    fresh = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=scene.engine, timeout=WITHIN, limits=fresh) as client:
        with scene.sidecar() as sidecar, Publisher("scene", address=sidecar.feed) as publisher:
            async with httpx.AsyncClient(base_url=sidecar.api, timeout=WITHIN) as api:
                await scene.register(publisher, api)
                await scene.live(publisher, api, client)
                assert scene.failures == []
                await check_staged(scene)
                report = (await api.get("/v1/report")).json()
                print(
                    f"{scene.calls} calls, {scene.in_slot} with their LoRA in a slot by the daemon's shadow, which"
                )
                print(f"agreed with the engine {scene.agreed} times of {scene.compared}; {report}")
                assert scene.agreed >= SHADOW_AGREES * scene.compared
                assert report["prefetches"] > 0
                assert report["failed"] == 0, failed_steps(sidecar.log)
            # Everything changes places, and the daemon dies in the midst of it.
            for number, agent in enumerate(scene.names):
                publisher.activity(agent, until=float(STEPS + number))
            assert await asyncio.to_thread(publisher.flush, WITHIN)
            await asyncio.to_thread(sidecar.kill)
        scene.remove_unlinked()
        await scene.ask_all(client)
        assert scene.failures == []
        await check_staged(scene)
