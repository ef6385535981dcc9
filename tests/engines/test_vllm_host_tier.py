"""The host tier in a real vLLM: what the device evicts comes back from host memory, after a restart, too, and what was
computed under other weights never does. What becomes of it in a version that isn't known from inside is in
`test_vllm_plugin.py`."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bench.rig import vllm
from bench.rig.vllm import VllmServer
from scalesim_adapters.hostbuf.segment import provide
from tests.adapters.contract import BLOCK
from tests.adapters.contract_tools import VOCABULARY

pytestmark = pytest.mark.engine

PREFIX_BLOCKS = 20
PREFIX = PREFIX_BLOCKS * BLOCK
POOL_BLOCKS = 3 * (PREFIX_BLOCKS + 2)
AGENTS = 6
TIER_BYTES = AGENTS * PREFIX * 4096 + (1 << 16)  # tiny has 4 KiB of KV per token in float32
NO_TIER = "no host tier, the engine goes on without it: "

Answers = list[tuple[int, str]]


@contextmanager
def serving(
    run: Path, segment: Path, *, model: str = "tiny", size: int | None = TIER_BYTES
) -> Iterator[VllmServer]:
    """Run a model with a pool for three of the agents' prompts, and a tier in `segment`."""
    if not vllm.installed():
        pytest.skip(f"vLLM is not installed: {vllm.REMEDY}")
    run.mkdir()
    flags = vllm.sidecar_flags(run, POOL_BLOCKS * BLOCK, max_model_len=1024)
    flags += [*vllm.tier_flags(segment, size), "--dtype", "float32"]
    env = {**vllm.PLUGIN_ENVIRONMENT, "VLLM_SERVER_DEV_MODE": "1"}
    with VllmServer(vllm.MODELS / model, flags, run=run, env=env) as server:
        yield server


@pytest.fixture
def segment() -> Iterator[Path]:
    """A segment's path where shared memory is."""
    folder = Path(f"/dev/shm/scalesim-test-{os.getpid()}")
    yield folder / "tier"
    shutil.rmtree(folder, ignore_errors=True)


def ask(server: VllmServer, agent: int) -> tuple[int, str]:
    """Return how many tokens of the agent's prompt were cached, and the answer."""
    rng = random.Random(agent)
    body = {
        "model": vllm.BASE,
        "prompt": [rng.randrange(10, VOCABULARY) for _ in range(PREFIX + 7)],
        "max_tokens": 12,
        "temperature": 0,
        "ignore_eos": True,
        "session_id": f"s/a{agent}",
    }
    said = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).raise_for_status().json()
    return said["usage"]["prompt_tokens_details"]["cached_tokens"], said["choices"][0]["text"]


def ask_all(server: VllmServer, agents: int = AGENTS) -> Answers:
    """Ask for every agent, one after the other."""
    return [ask(server, agent) for agent in range(agents)]


def texts(answers: Answers) -> list[str]:
    return [text for _, text in answers]


def cached(answers: Answers) -> list[int]:
    return [tokens for tokens, _ in answers]


def from_host(server: VllmServer) -> int:
    """Return how many prompt tokens have come from the host, as vLLM counts."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    name = "vllm:prompt_tokens_cached_by_source_total{"
    found = [line for line in lines if line.startswith(name) and 'source="host"' in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in found)


def said(server: VllmServer) -> list[str]:
    """Return what the tier has logged."""
    return [line for line in server.log.read_text(errors="replace").splitlines() if "host tier" in line]


def test_evicted_blocks_come_back_after_a_restart_too_and_never_to_other_weights(
    tmp_path: Path, segment: Path
) -> None:
    provide(segment, TIER_BYTES)  # as the daemon does
    with serving(tmp_path / "tiny", segment, size=None) as server:
        fresh = ask_all(server)
        assert cached(fresh) == [0] * AGENTS
        again = ask_all(server)
        assert cached(again) == [PREFIX] * AGENTS
        assert texts(again) == texts(fresh)
        # The device had kept the last three at best.
        assert from_host(server) >= (AGENTS - 3) * PREFIX

        server.kill()
        server.start()
        later = ask_all(server)
        assert texts(later) == texts(fresh)
        assert sum(cached(later)) == from_host(server) >= 2 * PREFIX

        ask_all(server)
        assert httpx.post(f"{server.url}/reset_prefix_cache").json() == {"success": True}
        assert cached(ask_all(server)) == [0] * AGENTS, "a reset means that KV may be wrong, on the host, too"
        assert cached(ask_all(server)) == [PREFIX] * AGENTS

        server.kill()
        server.start()
        assert cached(ask_all(server)) == [0] * AGENTS, (
            "the weights in memory may not have been those on disk"
        )
        assert any("none kept" in line for line in said(server))
    with serving(tmp_path / "other", segment, model="tiny-other") as server:
        other = ask_all(server)
        assert cached(other) == [0] * AGENTS
        assert not set(texts(other)) & set(texts(fresh))
        again = ask_all(server)
        assert cached(again) == [PREFIX] * AGENTS
        assert texts(again) == texts(other)


def test_with_many_requests_at_once_and_a_small_tier_no_answer_changes(tmp_path: Path, segment: Path) -> None:
    """Nine prompts for a pool of three and a tier of three: blocks change places, move, and are dropped."""
    with serving(tmp_path / "run", segment, size=TIER_BYTES // 2) as server, ThreadPoolExecutor(3) as pool:
        right = ask_all(server, 9)
        for seed in range(12):
            agents = random.Random(seed).sample(range(9), 6)
            answers = list(pool.map(lambda agent: ask(server, agent), agents))
            assert texts(answers) == [right[agent][1] for agent in agents], f"round {seed}"
        assert from_host(server) > 12 * PREFIX


def test_without_room_the_engine_serves_alone_and_says_what_to_do(tmp_path: Path, segment: Path) -> None:
    with serving(tmp_path / "run", segment, size=1 << 50) as server:
        first = ask_all(server)
        again = ask_all(server)
        assert texts(again) == texts(first)
        assert from_host(server) == 0
        (line,) = said(server)
    assert NO_TIER in line
    assert f"needs {1 << 50:,} bytes and {segment.parent} has" in line
    assert "enlarge that file system" in line
