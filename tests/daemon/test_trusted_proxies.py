"""Behind a reverse proxy each client counts as itself, where the proxy is named; nobody else's word for whom it asks
counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ConfigError
from tests.daemon.live import daemon

PROXY = "127.0.0.2"


def answers(folder: Path, sender: str, *forwarded: str) -> list[int]:
    """Return how a daemon behind `PROXY` answers to what an address of this host asks for others, each of whom may ask
    once."""

    async def scene() -> list[int]:
        api = {"port": 0, "requests_per_second": 0.01, "trusted_proxies": ["10.0.0.0/8", PROXY]}
        transport = httpx.AsyncHTTPTransport(local_address=sender)
        async with (
            daemon(folder, redis={"enabled": False}, api=api) as (sidecar, _),
            httpx.AsyncClient(transport=transport, base_url=sidecar.api_url) as client,
        ):
            asked = [await client.get("/v1/report", headers={"X-Forwarded-For": host}) for host in forwarded]
            return [answer.status_code for answer in asked]

    return asyncio.run(scene())


def test_each_client_of_a_proxy_counts_as_itself(tmp_path: Path) -> None:
    # What a client says itself stands before what the proxy says of it.
    asked = (
        "192.0.2.1",
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3, 192.0.2.2",
        "127.0.0.1, 192.0.2.2",
        "2001:db8::1",
    )
    assert answers(tmp_path, PROXY, *asked) == [200, 429, 200, 429, 429, 200]


def test_who_is_no_proxy_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What uvicorn would ask by itself.
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    assert answers(tmp_path, "127.0.0.1", *["192.0.2.1"] * 3) == [200, 200, 200]


@pytest.mark.parametrize("proxy", ["*", "proxy.example.org", "10.0.0.1/8", ""])
def test_a_proxy_is_an_address_or_a_network(proxy: str) -> None:
    with pytest.raises(ConfigError, match=r"api.trusted_proxies\[0\]"):
        load_settings(None, {"api": {"trusted_proxies": [proxy]}})
