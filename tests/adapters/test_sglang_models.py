"""What the SGLang adapter sends to put a model to sleep and wake it: nothing where our plug-in doesn't guard that."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from scalesim_adapters.base import (
    Busy,
    Capability,
    CapacityExceeded,
    MemoryKind,
    ModelItem,
    Tier,
    Unsupported,
)
from scalesim_adapters.sglang.adapter import SglangAdapter
from tests.adapters.answers import Answer
from tests.adapters.sglang_answers import (
    RELEASE,
    RESUME,
    Drive,
    Server,
    drive,
    evict,
    info_with,
    inside,
    load,
    probe,
)

MODEL = ModelItem("base")
ASLEEP = ("cuda_graph", "kv_cache", "weights")
FREES = {"enable_memory_saver": True, "enable_weights_cpu_backup": True}
LACK = "memory freed by sleep"


class Telling(Server):
    """Tells of itself what `told` says, which a release changes, and a resume, where it `does` what it is asked."""

    def __init__(self, told: httpx.Response, *, does: bool = True) -> None:
        super().__init__()
        self.told = told
        self._does = does

    def find(self, method: str, path: str) -> Answer:
        if path == "/server_info":
            return self.told
        if self._does and path in (RELEASE, RESUME):
            self.told = inside(ASLEEP if path == RELEASE else ())
        return super().find(method, path)


def sent(server: Server) -> list[str]:
    """Return which of the two routes were asked for."""
    return [path for _, path, _ in server.asked if path in (RELEASE, RESUME)]


def test_awake_it_is_put_to_sleep_and_asleep_it_is_woken_once() -> None:
    async def twice(adapter: SglangAdapter) -> None:
        for _ in range(2):
            await adapter.evict(MODEL, Tier.HOST, deadline=5)
        for _ in range(2):
            await adapter.load(MODEL, Tier.DEVICE, deadline=5)

    server = Telling(inside())
    drive(server, twice)
    assert sent(server) == [RELEASE, RESUME]
    assert server.posted(RELEASE) == server.posted(RESUME) == [{}]


def test_it_stays_awake_or_asleep_where_the_server_doesnt_do_it() -> None:
    with pytest.raises(Busy):
        drive(Telling(inside(), does=False), evict(MODEL))
    with pytest.raises(CapacityExceeded):
        drive(Telling(inside(["weights"]), does=False), load(MODEL))


@pytest.mark.parametrize(
    ("info", "able", "lacks"),
    [
        (info_with(kv_events_config=None), False, False),
        (inside(), True, True),
        (inside(**FREES), True, False),
        # Awake again it would have other weights.
        (inside(**FREES | {"enable_weights_cpu_backup": False}), False, True),
        (inside(dp_size=2), False, True),
    ],
)
def test_it_is_offered_where_it_is_guarded_and_loses_nothing(
    info: httpx.Response, able: bool, lacks: bool
) -> None:
    server = Telling(info)
    found = probe(server)
    assert found.capabilities[MemoryKind.MODEL] == (
        Capability.SLEEP | Capability.LOAD if able else Capability.NONE
    )
    remedies = [lack.remedy for lack in found.missing if lack.what == LACK]
    assert len(remedies) == lacks
    assert all("--enable-memory-saver --enable-weights-cpu-backup" in remedy for remedy in remedies)
    if not able:
        for body in (evict(MODEL), load(MODEL)):
            with pytest.raises(Unsupported):
                drive(server, body)
    assert sent(server) == []


@pytest.mark.parametrize("body", [evict(MODEL), load(MODEL)])
def test_nothing_is_sent_once_the_guard_is_gone(body: Drive) -> None:
    """A server that was restarted without the plug-in, after it was probed."""
    server = Telling(inside())

    async def restarted(adapter: SglangAdapter) -> None:
        await adapter.probe()
        server.told = info_with(kv_events_config=None)
        await body(adapter)

    with pytest.raises(Unsupported, match="SCALESIM_DUES"):
        drive(server, restarted)
    assert sent(server) == []


def test_there_is_one_place_to_sleep_and_one_set_of_weights(tmp_path: Path) -> None:
    server = Telling(inside())
    for tier in (Tier.STORAGE, Tier.REMOTE, Tier.DEVICE):
        with pytest.raises(Unsupported):
            drive(server, evict(MODEL, tier))
    with pytest.raises(Unsupported):
        drive(server, load(ModelItem("base", tmp_path)))
    assert sent(server) == []


def test_the_inventory_tells_whether_it_sleeps() -> None:
    async def asleep(adapter: SglangAdapter) -> bool | None:
        return (await adapter.inventory()).asleep

    infos = (info_with(kv_events_config=None), inside(), inside(["kv_cache"]), inside(ASLEEP))
    assert [drive(Telling(info), asleep) for info in infos] == [None, False, True, True]
