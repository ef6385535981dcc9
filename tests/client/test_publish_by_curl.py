"""The page's one-liners: events by curl, through the API of a running daemon."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.client.wire_page import PAGE
from tests.daemon.live import daemon

ONE_EVENT, ONE_STREAM = re.findall(r"```sh\n(.+?)```", PAGE.read_text(), re.DOTALL)


async def shell(command: str, api_url: str) -> Any:
    process = await asyncio.create_subprocess_shell(
        command.replace("http://127.0.0.1:8700", api_url), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 0
    return json.loads(out)


def numbered(seq: int, event: dict[str, Any]) -> str:
    body = json.dumps([0, [event]])
    return f"curl -sS 'http://127.0.0.1:8700/v1/events?source=village&seq={seq}' -d '{body}'"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_a_shell_is_a_publisher(tmp_path: Path) -> None:
    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, api):
            assert await shell(ONE_EVENT, sidecar.api_url) == {"accepted": 1, "refused": [], "resync": False}
            assert (await api.get("/v1/agents/anonymous/rosa")).json()["distance"] == 0
            assert await shell(ONE_STREAM, sidecar.api_url) == {"accepted": 3, "refused": [], "resync": False}
            rosa = (await api.get("/v1/agents/village/rosa")).json()
            assert (rosa["due"], rosa["distance"], rosa["unit"]) == (10, 6, "step")

            after_a_gap = await shell(numbered(7, {"type": "step.advanced", "now": 5}), sidecar.api_url)
            assert after_a_gap == {"accepted": 1, "refused": [], "resync": True}
            rosa_acts = {"type": "agent.activity_started", "agent": "rosa", "until": 8, "now": 4}
            snapshot = {"type": "state.snapshot", "part": 0, "of": 1, "now": 5, "events": [rosa_acts]}
            healed = await shell(numbered(8, snapshot), sidecar.api_url)
            assert healed == {"accepted": 1, "refused": [], "resync": False}
            assert (await api.get("/v1/agents/village/rosa")).json()["due"] == 8

    asyncio.run(scene())
