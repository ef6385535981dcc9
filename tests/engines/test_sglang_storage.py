"""The storage of a real SGLang: pages come back from it after a kill, too, and never to other weights, LoRAs or
salts."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from bench.rig import sglang
from bench.rig.process import MODELS
from bench.rig.sglang import SglangServer
from tests.adapters.contract import BLOCK
from tests.adapters.contract_tools import LONG, VOCABULARY
from tests.adapters.dues_scene import until
from tests.engines import sglang_inside
from tests.engines.sglang_inside import broadcasting, state

pytestmark = pytest.mark.engine

CHECKS = Path(__file__).parent / "in_sglang" / "storage_checks.py"
PAGES = 10
PREFIX = PAGES * BLOCK
POOL_PAGES = 3 * (PAGES + 2)
PROMPTS = 7
PAGE_BYTES = BLOCK * 4096  # tiny has 4 KiB of KV per token in float32
ROOM = PROMPTS + 2
STORAGE_BYTES = (ROOM * PAGES + 1) * PAGE_BYTES
LORAS = ("lora00", "lora01")
NO_STORAGE = "no storage, the engine goes on without it: "
AGENTS = [f"a{number}" for number in range(3)]
# The same prompt for everybody else.
SHARED: list[dict[str, Any]] = [
    {"lora_path": LORAS[0]},
    {"lora_path": LORAS[1]},
    {"cache_salt": "salt"},
    {"cache_salt": "pepper"},
]


class Answer(NamedTuple):
    """What was said, and how many tokens of the prompt came from storage and from anywhere."""

    text: str
    stored: int
    cached: int


@contextmanager
def serving(
    run: Path, segment: Path, *, model: str = "tiny", size: int = STORAGE_BYTES, **env: str
) -> Iterator[SglangServer]:
    """Run a model with a pool for three prompts, a host tier of twice that, and a storage in `segment`."""
    if not sglang.installed():
        pytest.skip(f"SGLang is not installed: {sglang.REMEDY}")
    run.mkdir()
    flags = sglang.sidecar_flags(run, POOL_PAGES * BLOCK, max_model_len=1024, page_size=BLOCK)
    flags += [*sglang.lora_flags(), *sglang.host_tier_flags(), *sglang.storage_flags(segment, size)]
    env = {**sglang_inside.environment(run), **env}
    with SglangServer(MODELS / model, flags, run=run, env=env) as server:
        yield server


@pytest.fixture
def segment() -> Iterator[Path]:
    """A segment's path where shared memory is."""
    folder = Path(f"/dev/shm/scalesim-test-{os.getpid()}")
    yield folder / "storage"
    shutil.rmtree(folder, ignore_errors=True)


def ask(server: SglangServer, agent: str, prompt: str | None = None, **fields: Any) -> Answer:
    """Send a request of the agent, with the prompt of that name, or one of its own."""
    rng = random.Random(prompt or agent)
    body = {
        "input_ids": [rng.randrange(10, VOCABULARY) for _ in range(PREFIX + 7)],
        "sampling_params": {"max_new_tokens": 12, "temperature": 0, "ignore_eos": True},
        "session_id": f"s/{agent}",
        **fields,
    }
    said = httpx.post(f"{server.url}/generate", json=body, timeout=LONG).raise_for_status().json()
    meta = said["meta_info"]
    return Answer(
        said["text"], (meta["cached_tokens_details"] or {}).get("storage", 0), meta["cached_tokens"]
    )


def ask_agents(server: SglangServer) -> list[Answer]:
    return [ask(server, agent) for agent in AGENTS]


def ask_shared(server: SglangServer) -> list[Answer]:
    return [ask(server, f"shared-{number}", "shared", **fields) for number, fields in enumerate(SHARED)]


def texts(answers: list[Answer]) -> list[str]:
    return [answer.text for answer in answers]


def load_loras(server: SglangServer) -> None:
    for name in LORAS:
        body = {"lora_name": name, "lora_path": str(MODELS / "tiny-loras" / name)}
        httpx.post(f"{server.url}/load_lora_adapter", json=body, timeout=LONG).raise_for_status()


def flush(server: SglangServer, prompts: int) -> None:
    """Drop what the device and the host have, once so many prompts are stored."""
    until(lambda: state(server)["stored"] >= prompts * PAGES)
    httpx.post(f"{server.url}/flush_cache", timeout=LONG).raise_for_status()


def logged(server: SglangServer, what: str) -> list[str]:
    return [line for line in server.log.read_text(errors="replace").splitlines() if what in line]


def update_weights(server: SglangServer, model: str, **fields: Any) -> bool:
    body = {"model_path": str(MODELS / model), **fields}
    answer = httpx.post(f"{server.url}/update_weights_from_disk", json=body, timeout=LONG)
    return bool(answer.raise_for_status().json()["success"])


def test_pages_come_back_after_a_kill_too_and_never_to_other_weights_loras_or_salts(
    tmp_path: Path, segment: Path
) -> None:
    with serving(tmp_path / "tiny", segment) as server:
        load_loras(server)
        fresh, shared = ask_agents(server), ask_shared(server)
        assert [answer.cached for answer in fresh + shared] == [0] * PROMPTS, "nobody has what others stored"
        assert len(set(texts(shared[:2]))) == 2 and shared[2].text == shared[3].text
        flush(server, PROMPTS)
        assert ask_agents(server) == [Answer(text, PREFIX, PREFIX) for text in texts(fresh)]
        assert ask_shared(server) == [Answer(text, PREFIX, PREFIX) for text in texts(shared)]

        server.kill()
        server.start()
        assert logged(server, f"{PROMPTS * PAGES} kept")
        assert ask_agents(server) == [Answer(text, PREFIX, PREFIX) for text in texts(fresh)]
        load_loras(server)
        again = ask_shared(server)
        assert texts(again) == texts(shared)
        # A LoRA that is loaded again is another one to SGLang.
        assert [answer.stored for answer in again] == [0, 0, PREFIX, PREFIX]
    with serving(tmp_path / "other", segment, model="tiny-other") as server:
        assert logged(server, "none kept")
        other = ask_agents(server)
        assert [answer.cached for answer in other] == [0] * len(AGENTS)
        assert not set(texts(other)) & set(texts(fresh))
        flush(server, len(AGENTS))
        assert ask_agents(server) == [Answer(text, PREFIX, PREFIX) for text in texts(other)]

        near_ones_stay(server)

        assert update_weights(server, "tiny")
        assert state(server)["stored"] == 0
        assert ask_agents(server) == [Answer(text, 0, 0) for text in texts(fresh)]
        flush(server, len(AGENTS))
        assert ask_agents(server) == [Answer(text, PREFIX, PREFIX) for text in texts(fresh)]
        # What the device has cached stays, and is not right: nothing of it is taken in.
        assert update_weights(server, "tiny-other", flush_cache=False)
        ask(server, "late")
        assert state(server)["stored"] == 0
        httpx.post(f"{server.url}/flush_cache", timeout=LONG).raise_for_status()
        assert ask_agents(server) == [Answer(text, 0, 0) for text in texts(other)]


def near_ones_stay(server: SglangServer) -> None:
    """Those who have called longest ago call soonest: what others store displaces them last."""
    crowd = [f"crowd-{number}" for number in range(ROOM)]
    dues = {f"s/{agent}": 1.0 for agent in AGENTS[:2]} | {f"s/{agent}": 9.0 for agent in crowd}
    with broadcasting(server, dues):
        for agent in crowd:
            assert ask(server, agent).cached == 0
        flush(server, PROMPTS)
        assert [ask(server, agent).stored for agent in AGENTS[:2]] == [PREFIX] * 2
        assert ask(server, AGENTS[2]).stored == 0


def test_an_engine_that_is_not_known_from_inside_goes_on_without_it(tmp_path: Path, segment: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"exec(open({str(sglang.SHIM / 'sitecustomize.py')!r}).read())\n"
        "from scalesim_adapters.sglang import plugin\nplugin.KNOWN_VERSIONS = ('0.0.1',)\n"
    )
    with serving(tmp_path / "run", segment, PYTHONPATH=f"{tmp_path}:{sglang.SHIM}") as server:
        first = ask_agents(server)
        httpx.post(f"{server.url}/flush_cache", timeout=LONG).raise_for_status()
        assert ask_agents(server) == [Answer(text, 0, 0) for text in texts(first)]
        assert state(server) == {}
        (line,) = logged(server, NO_STORAGE)
        assert "with an SGLang that it knows from inside" in line
        assert logged(server, "is not known from inside")
    assert not segment.exists()


def test_in_sglang() -> None:
    if not sglang.installed():
        pytest.skip(f"SGLang is not installed: {sglang.REMEDY}")
    ran = subprocess.run(
        [str(sglang.VENV / "bin" / "python"), str(CHECKS)],
        env={**os.environ, **sglang.ENVIRONMENT, "PYTHONPATH": str(sglang.SHIM)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("check_") == CHECKS.read_text().count("def check_")
