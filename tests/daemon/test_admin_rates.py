"""Another host that asks too often waits; this one doesn't, nor does who asks for the daemon's health."""

from __future__ import annotations

import asyncio

import httpx

from scalesim_daemon.admin.rates import BURST_SECONDS, MOST_HOSTS, Rates
from scalesim_daemon.api import build_api
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.settings import ApiSettings, Settings


def test_a_host_gets_what_it_may_have_and_no_more() -> None:
    rates = Rates(8.0)
    burst = int(8 * BURST_SECONDS)
    assert [rates.allows("a", 5.0) for _ in range(burst + 2)] == [True] * burst + [False] * 2
    # Another host isn't held up by it, and it has its rate again as time goes by, without what it was refused.
    assert rates.allows("b", 5.0)
    taken = sum(rates.allows("a", 5.0 + tick / 100) for tick in range(1, 1001))
    assert taken in range(79, 82)
    assert rates.allows("a", 1000.0)


def test_hosts_that_are_never_heard_again_take_no_memory() -> None:
    rates = Rates(1.0)
    for host in range(MOST_HOSTS + 5):
        rates.allows(str(host), 0.0)
    assert len(rates._paid_until) == MOST_HOSTS


def test_who_asks_too_often_is_told_so(sidecar: Sidecar) -> None:
    async def ask(host: str, path: str, times: int) -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=api, client=(host, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [await client.get(path) for _ in range(times)]

    async def scene() -> None:
        answered, refused = await ask("10.0.0.9", "/v1/report", 2)
        assert (answered.status_code, refused.status_code) == (200, 429)
        assert refused.headers["retry-after"] == "1"
        assert "10.0.0.9 asks too often" in refused.json()["detail"]
        assert {answer.status_code for answer in await ask("10.0.0.9", "/health", 3)} == {200}
        assert [answer.status_code for answer in await ask("10.0.0.8", "/v1/report", 1)] == [200]
        for here in ("127.0.0.1", "::1"):
            assert {answer.status_code for answer in await ask(here, "/v1/report", 3)} == {200}

    sidecar.settings = Settings(api=ApiSettings(requests_per_second=0.01))
    api = build_api(sidecar)
    asyncio.run(scene())
