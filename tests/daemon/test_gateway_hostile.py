"""What the gateway doesn't pass on: headers that an engine's server would read otherwise, and what pages of other sites
have a browser send; and what it doesn't tell of its engines."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from tests.daemon.gateway_rig import beside, front
from tests.daemon.live import emulator

ASK = {"model": "base", "prompt": "a", "user": "town/a"}


def test_nothing_of_it_reaches_an_engine(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path) as engine:
            sidecar = beside(tmp_path, engine.url)
            async with front(sidecar) as client:
                for headers, status, said in (
                    ({"x-odd": "a\x01b"}, 400, "a header can't be passed on"),
                    ({"x-odd": "a\x1b[2J"}, 400, "a header can't be passed on"),
                    ({"sec-fetch-site": "cross-site", "content-type": "text/plain"}, 403, "another site"),
                ):
                    answer = await client.post("/v1/completions", json=ASK, headers=headers)
                    assert answer.status_code == status and said in answer.json()["error"]["message"]
                assert _asked(engine.url) == 0
                # A refused page is nobody's call; what is sent with odd bytes above ASCII is.
                sites = {"sec-fetch-site": "same-origin", "x-odd": b"\xe9"}
                assert (await client.post("/v1/completions", json=ASK, headers=sites)).status_code == 200
                assert set(sidecar.gate.streams()) == {"gateway/town"}
                assert _asked(engine.url) == 1

    asyncio.run(scene())


def _asked(url: str) -> float:
    """Return how many requests an engine has served."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    served = [line.split()[-1] for line in lines if line.startswith("vllm:request_success_total{")]
    return sum(map(float, served))


def test_an_engine_s_password_is_not_told_with_its_address(tmp_path: Path) -> None:
    async def scene() -> None:
        sidecar = beside(tmp_path, "http://operator:hunter2-hunter2@127.0.0.1:9")
        async with front(sidecar) as client:
            # OpenAI's clients always say who they are.
            for headers in ({}, {"authorization": "Bearer none"}):
                answer = await client.post("/v1/completions", json=ASK, headers=headers)
                assert answer.status_code == 502 and "127.0.0.1:9" in answer.text
                assert "hunter2" not in answer.text

    asyncio.run(scene())
