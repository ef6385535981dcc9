"""Eviction by due in a real vLLM: who survives pressure while a daemon speaks, after it fell silent, and where the
engine isn't known from inside."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic

import httpx
import pytest

from bench.rig import vllm
from bench.rig.daemon import DaemonProcess
from bench.rig.vllm import VllmServer
from scalesim_adapters.dues import DueListener
from scalesim_client import Publisher
from tests.adapters.contract import BLOCK
from tests.adapters.dues_scene import until
from tests.daemon.live import emulator
from tests.engines import vllm_subject
from tests.engines.small_village import PREFIX, tokens
from tests.engines.test_vllm_host_tier import NO_TIER, TIER_BYTES, from_host

pytestmark = pytest.mark.engine

PREFIX_BLOCKS = PREFIX // BLOCK
AGENTS = 4
POOL_BLOCKS = 5 * PREFIX_BLOCKS
PRESSURE_BLOCKS = 55
SILENCE_SECONDS = 1.5
WITHIN = 20.0

WHOLE = [PREFIX, PREFIX]
NAMES = [f"a{number}" for number in range(AGENTS)]

BY_DUE = "evicting by due"
BY_RECENCY = "no dues are heard: evicting by recency"


def start(
    run: Path, dues: str, scheduler: str = "DueScheduler", more: Sequence[str] = (), **env: str
) -> VllmServer:
    """Start an engine with the plug-in that listens at `dues`, and with `more` flags."""
    options = {"scalesim": {"dues": dues, "silence_seconds": SILENCE_SECONDS}}
    flags = [
        *vllm.sidecar_flags(run, POOL_BLOCKS * BLOCK),
        *("--dtype", "float32"),
        *("--scheduler-cls", f"scalesim_adapters.vllm.plugin.scheduler.{scheduler}"),
        *("--additional-config", json.dumps(options)),
        *more,
    ]
    return vllm_subject.start(run, flags, env={**vllm.PLUGIN_ENVIRONMENT, **env})


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that moves nothing in the engine, which only hears what it says: its own engine is an emulated one."""
    folder = tmp_path_factory.mktemp("daemon")
    with emulator(folder) as other:
        daemon = DaemonProcess(folder, other.url)
        yield daemon
        daemon.stop()


@pytest.fixture(scope="module")
def server(daemon: DaemonProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    with start(tmp_path_factory.mktemp("plugin"), daemon.dues) as server:
        yield server


class Scene:
    """Requests to one engine."""

    def __init__(self, server: VllmServer, client: httpx.AsyncClient) -> None:
        self._log = server.log
        self._client = client

    async def ask(self, session: str | None, prompt: list[int], length: int = 4) -> tuple[str, int]:
        """Return the text that follows a prompt, and how many of its tokens were cached."""
        body = {
            "model": "base",
            "prompt": prompt,
            "max_tokens": length,
            "temperature": 0,
            "ignore_eos": True,
            "session_id": session,
        }
        answer = (await self._client.post("/v1/completions", json=body)).raise_for_status().json()
        return answer["choices"][0]["text"], answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    def said(self) -> str | None:
        """Return which policy the engine's log names last."""
        lines = self._log.read_text(errors="replace").splitlines()
        return next(
            (policy for line in reversed(lines) for policy in (BY_DUE, BY_RECENCY) if policy in line), None
        )

    async def follows(self, policy: str) -> float:
        """Wait until the engine follows a policy; return how many seconds that took."""
        begun = monotonic()
        while self.said() != policy:
            assert monotonic() < begun + WITHIN, f"it never came to be {policy!r}: {self._log}"
            # Less than a block: what it leaves behind is no content.
            await self.ask(None, tokens("a few", 8), 1)
        return monotonic() - begun

    async def survivors(self, simulation: str) -> list[int]:
        """Fill the pool with agents a0 to a3, in this order, press, and return what a0 and a1 find cached."""
        for number in range(AGENTS):
            await self.ask(f"{simulation}/a{number}", tokens(f"{simulation}/a{number}"), 1)
        await self.ask(None, tokens(f"{simulation} pressure", PRESSURE_BLOCKS * BLOCK - 8), 1)
        # One token more than the prefix, whose last token would be computed anew otherwise.
        prompts = {f"{simulation}/a{number}": [*tokens(f"{simulation}/a{number}"), 1] for number in range(2)}
        return [(await self.ask(agent, prompt, 1))[1] for agent, prompt in prompts.items()]


def play(server: VllmServer, body: Callable[[Scene], Awaitable[None]]) -> None:
    """Run a scene."""

    async def main() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            await body(Scene(server, client))

    asyncio.run(main())


@contextmanager
def simulation(daemon: DaemonProcess, name: str) -> Iterator[str]:
    """A simulation whose agents a0 and a1 are the next to call, and a2 and a3 far; every plug-in has heard of it,
    and of its end."""
    with closing(DueListener(daemon.dues)) as listener:
        with Publisher(name, address=daemon.feed) as publisher:
            publisher.step(0.0)
            for number, due in enumerate((1.0, 2.0, 50.0, 60.0)):
                publisher.activity(f"a{number}", until=due)
            until(lambda: set(NAMES) == {agent for agent in NAMES if listener.table.due(f"{name}/{agent}")})
            yield name
        if daemon.running:
            until(lambda: len(listener.table) == 0)


def test_near_agents_survive_pressure_while_the_daemon_speaks_and_only_then(
    daemon: DaemonProcess, server: VllmServer
) -> None:
    """The two prefixes used longest ago are those of the next callers: by due they stay, by recency the first is
    lost. The daemon falls silent in each way that it can."""

    async def scene(scene: Scene) -> None:
        took = []
        assert (await scene.survivors("before"))[0] == 0
        assert scene.said() is None
        daemon.start()
        with simulation(daemon, "spoken") as name:
            await scene.follows(BY_DUE)
            assert await scene.survivors(name) == WHOLE
        with simulation(daemon, "frozen") as name:
            daemon.signal(signal.SIGSTOP)
            took.append(await scene.follows(BY_RECENCY))
            assert (await scene.survivors(name))[0] == 0
            daemon.signal(signal.SIGCONT)
            await scene.follows(BY_DUE)
        with simulation(daemon, "thawed") as name:
            assert await scene.survivors(name) == WHOLE
        with simulation(daemon, "killed") as name:
            daemon.kill()
            took.append(await scene.follows(BY_RECENCY))
            assert (await scene.survivors(name))[0] == 0
        daemon.start()
        with simulation(daemon, "restarted") as name:
            await scene.follows(BY_DUE)
            assert await scene.survivors(name) == WHOLE
        print("back to recency after", ", ".join(f"{seconds:.2f} s" for seconds in took))
        assert max(took) < SILENCE_SECONDS + 1.0

    play(server, scene)


def test_the_asynchronous_scheduler_evicts_by_due_as_well(daemon: DaemonProcess, tmp_path: Path) -> None:
    async def scene(scene: Scene) -> None:
        with simulation(daemon, "async") as name:
            await scene.follows(BY_DUE)
            assert await scene.survivors(name) == WHOLE

    daemon.start()
    with start(tmp_path, daemon.dues, "DueAsyncScheduler") as server:
        play(server, scene)


def test_an_unknown_version_stays_stock_and_says_so_and_all_texts_are_equal(
    daemon: DaemonProcess, server: VllmServer, tmp_path: Path
) -> None:
    """The second engine is made to know none of vLLM's versions, and to fail where it looks inside all the same; its
    flags ask for a host tier, too. Both serve the same requests under pressure, one evicting by due, the other by
    recency; in a precision without rounding ties their texts are the same."""
    prompts = [
        (f"texts/a{number}", [*tokens(f"texts/a{number}"), *tokens(f"turn {turn}", 40)])
        for turn in range(3)
        for number in range(7)
    ]

    async def serve(scene: Scene) -> list[tuple[str, int]]:
        return [await scene.ask(agent, prompt, 12) for agent, prompt in prompts]

    texts: list[list[tuple[str, int]]] = []

    async def by_due(scene: Scene) -> None:
        with simulation(daemon, "texts"):
            await scene.follows(BY_DUE)
            texts.append(await serve(scene))

    async def by_recency(scene: Scene) -> None:
        texts.append(await serve(scene))
        assert scene.said() is None
        with simulation(daemon, "unknown") as name:
            assert (await scene.survivors(name))[0] == 0

    daemon.start()
    play(server, by_due)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "from scalesim_adapters.vllm.plugin import versions\n"
        "versions.KNOWN = frozenset({'0.0.1'})\n"
        "sys.modules['scalesim_adapters.vllm.plugin.pool'] = None\n"
    )
    path = f"{tmp_path}:{vllm.PLUGIN_ENVIRONMENT['PYTHONPATH']}"
    segment = tmp_path / "tier"
    tier = vllm.tier_flags(segment, TIER_BYTES)
    with start(tmp_path, daemon.dues, more=tier, PYTHONPATH=path) as unknown:
        play(unknown, by_recency)
        assert from_host(unknown) == 0
        log = unknown.log.read_text(errors="replace").splitlines()
    why = f"vLLM {vllm.VERSION} is not known from inside; known: 0.0.1"
    (line,) = (line for line in log if "eviction stays vLLM's own" in line)
    assert why in line
    lines = [line for line in log if "host tier" in line]
    assert lines and all(NO_TIER in line and why in line for line in lines)
    assert not segment.exists()
    (due, recency) = texts
    assert [text for text, _ in due] == [text for text, _ in recency]
    assert len({text for text, _ in due}) > len(prompts) // 2
    assert sum(cached for _, cached in due) > sum(cached for _, cached in recency)
