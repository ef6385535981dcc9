"""A LoRA that was trained anew under its name, on real engines: what it says then is what its new weights say, and
nothing that was computed with the old ones is used.

vLLM's CPU build computes LoRAs right only in short prompts, and apart from requests of the base model.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.rig.daemon import DaemonProcess
from bench.rig.process import MODELS
from scalesim_client import Publisher
from scalesim_client.events import AgentReleased
from tests.adapters.contract import BLOCK
from tests.engines.lora_scene import until
from tests.engines.small_village import tokens

pytestmark = pytest.mark.engine

PROMPT = [*tokens("pupil", BLOCK), 7, 8]


class Engine:
    """Requests to one engine. SGLang takes a LoRA's name as part of its base model's."""

    def __init__(self, client: httpx.AsyncClient, kind: str) -> None:
        self._client = client
        self._model = "base:{}" if kind == "sglang" else "{}"

    async def paths(self) -> dict[str, str]:
        """Return the LoRAs that the engine knows, with the paths they were loaded from."""
        cards = (await self._client.get("/v1/models")).raise_for_status().json()["data"]
        return {card["id"]: card["root"] for card in cards if card.get("parent") is not None}

    async def ask(self, name: str) -> tuple[str, int]:
        """Return what a LoRA says, and how much of its prompt was cached."""
        model = self._model.format(name)
        body = {"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
        said: Any = (await self._client.post("/v1/completions", json=body)).raise_for_status().json()
        details = said["usage"]["prompt_tokens_details"] or {}
        return said["choices"][0]["text"], details.get("cached_tokens") or 0


def train(pupil: Path, number: int) -> None:
    """Give the LoRA in a folder other weights, as a trainer does: in place."""
    for file in sorted((MODELS / "tiny-loras").iterdir())[number].iterdir():
        fresh = pupil.with_suffix(".part")
        shutil.copyfile(file, fresh)
        fresh.replace(pupil / file.name)


async def play(daemon: DaemonProcess, url: str, kind: str, folder: Path) -> None:
    pupil, teacher = folder / "pupil", sorted((MODELS / "tiny-loras").iterdir())[1]
    pupil.mkdir()
    train(pupil, 0)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        engine = Engine(client, kind)
        with Publisher("school", address=daemon.feed) as publisher:
            publisher.bind("a", lora=str(pupil), lora_name="pupil")
            publisher.bind("b", lora=str(teacher), lora_name="teacher")

            async def both_known() -> bool:
                return (await engine.paths()).keys() == {"pupil", "teacher"}

            await until(both_known)
            before = (await engine.paths())["pupil"]
            untrained, _ = await engine.ask("pupil")
            assert await engine.ask("pupil") == (untrained, BLOCK)
            right, _ = await engine.ask("teacher")
            assert right != untrained

            train(pupil, 1)
            publisher.bind("a", lora=str(pupil), lora_name="pupil")

            async def known_anew() -> bool:
                return (await engine.paths()).get("pupil", before) != before

            await until(known_anew)
            assert await engine.ask("pupil") == (right, 0)
            assert await engine.ask("pupil") == (right, BLOCK)
            for agent in "ab":
                publisher.send(AgentReleased(agent=agent))

            async def none_known() -> bool:
                return not await engine.paths()

            await until(none_known)


@pytest.mark.parametrize(
    "server", ["vllm_server", "inside_vllm_server", "sglang_server", "inside_sglang_server"]
)
def test_what_was_trained_anew_says_what_its_new_weights_say(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue(server).url
    kind = "sglang" if "sglang" in server else "vllm"
    with DaemonProcess(tmp_path, url, kind=kind, lora_slots=2, lora_host_places=4) as daemon:
        asyncio.run(play(daemon, url, kind, tmp_path))
