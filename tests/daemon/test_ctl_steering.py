"""What `scalesimctl` has a whole daemon do: modes, pins, prefetches, evictions, and the configuration read again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from scalesim_adapters.base import Capability, EngineInfo, MemoryKind, Outcome
from scalesim_adapters.vllm.adapter import VllmAdapter
from scalesim_daemon.ctl.client import Daemon
from scalesim_daemon.ctl.options import duration
from scalesim_daemon.settings import RunMode
from tests.adapters.emulator_rig import make_lora
from tests.daemon.ctl_rig import Whole, call, in_a_thread, populate
from tests.daemon.live import emulator
from tests.daemon.test_doctor import serving

ELSEWHERE = list(range(1000, 1064))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("ctl-steering")
    with emulator(folder) as engine, in_a_thread(folder, engine.url) as whole:
        populate(whole)
        whole.say(
            {
                "type": "memory.bound",
                "agent": "a1",
                "lora": str(make_lora(folder / "ell")),
                "lora_name": "ell",
            }
        )
        yield whole


@pytest.fixture
def busy(whole: Whole) -> Iterator[Whole]:
    """A daemon whose engine is not quiet, and an agent whose prefix waits for that."""
    whole.say({"type": "invocation.started", "agent": "a2"})
    whole.say({"type": "memory.bound", "agent": "late", "token_ids": ELSEWHERE})
    yield whole
    whole.say({"type": "agent.released", "agent": "late"}, {"type": "invocation.finished", "agent": "a2"})


def steer(whole: Whole, *arguments: str) -> Any:
    """Return what came of a command, as plain data."""
    done = call(*arguments, "--url", whole.url, "--format", "json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_modes_hold_at_once(whole: Whole) -> None:
    assert steer(whole, "pause") == {"mode": "paused", "before": "active", "not_kept": None}
    refused = call("prefetch", "town/a0", "--url", whole.url)
    assert refused.exit_code == 1 and "the mode is paused" in refused.stderr and refused.stdout == ""
    done = call("observe", "--url", whole.url)
    assert done.exit_code == 0 and done.stdout == "mode observe (it was paused)\n"
    assert steer(whole, "resume")["mode"] == "active"


def test_pins_come_and_go(whole: Whole) -> None:
    done = call("pin", "town/a0", "--for", "10m", "--url", whole.url)
    assert done.exit_code == 0 and done.stdout.startswith("town/a0 is pinned until ")
    (pin,) = steer(whole, "pins")["pins"]
    assert pin["key"] == "town/a0"
    assert "town/a0" in call("pins", "--url", whole.url).stdout
    assert "pinned until" in call("explain", "town/a0", "--url", whole.url).stdout
    assert [agent["key"] for agent in steer(whole, "agents", "--pinned")["agents"]] == ["town/a0"]
    assert steer(whole, "unpin", "town/a0") == {"key": "town/a0", "until": None, "not_kept": None}
    assert steer(whole, "pins")["total"] == 0


def test_a_pin_that_may_not_be_is_refused_with_the_reason(whole: Whole) -> None:
    unknown = call("pin", "town/nobody", "--url", whole.url)
    assert unknown.exit_code == 1 and "'town/nobody' is not known" in unknown.stderr
    long = call("pin", "town/a0", "--for", "31d", "--url", whole.url)
    assert long.exit_code == 2 and "seconds: Input should be less than or equal to" in long.stderr


def test_a_prefetch_waits_until_all_is_there(whole: Whole) -> None:
    done = call("prefetch", "town/a0", "ell", "--url", whole.url)
    assert done.exit_code == 0, done.output
    for word in ("load prefix_kv", "town/a0", "load lora", "ell", "it is on the device"):
        assert word in done.stdout
    assert done.stderr == "", "progress is shown on a terminal alone"
    listed = steer(whole, "operations")["operations"]
    assert {(one["key"], one["state"]) for one in listed} >= {("town/a0", "done"), ("ell", "done")}
    assert steer(whole, "operations", listed[0]["id"])["operations"] == listed[:1]


def test_what_is_refused_keeps_nothing_else_from_being_done(whole: Whole) -> None:
    done = call("prefetch", "town/nobody", "town/a0", "--url", whole.url)
    assert done.exit_code == 1
    assert "'town/nobody' is not known" in done.stderr and "town/a0" in done.stdout
    for arguments, problem in (
        (["prefetch", "no-lora"], "LoRA 'no-lora' is not known"),
        (["prefetch", "--lora", "town/a0"], "LoRA 'town/a0' is not known"),
        (["prefetch", "town/a0", "--engine", "no-engine"], "engine 'no-engine' is not known"),
        (["evict", "town/a0"], "stock engines evict what was used longest ago"),
        (["cancel", "no-operation"], "operation 'no-operation' is not known"),
        (["operations", ".."], "operation '..' is not known"),
    ):
        refused = call(*arguments, "--url", whole.url)
        assert refused.exit_code == 1 and problem in refused.stderr, refused.output


def test_what_is_wrong_keeps_nothing_else_from_being_done(whole: Whole) -> None:
    done = call("prefetch", "town/a0", "x" * 1025, "ell", "--url", whole.url)
    assert done.exit_code == 2
    assert "key: String should have at most 1024" in done.stderr
    assert "town/a0" in done.stdout and "ell" in done.stdout


def test_what_goes_on_is_named_where_the_daemon_goes_away(whole: Whole) -> None:
    (begun,) = steer(whole, "prefetch", "town/a0", "--no-wait")["operations"]
    answers = [json.dumps({**begun, "state": "waiting", "ended_at": None}).encode()]

    class Dying(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if answers:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answers.pop())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Dying) as url:
        done = call("prefetch", "town/a0", "town/a1", "--url", url)
    assert done.exit_code == 2 and "no daemon answers" in done.stderr
    assert f"`scalesimctl cancel {begun['id']}` gives it up" in done.stderr


def test_ids_may_hold_other_ends_of_lines(whole: Whole) -> None:
    name = "one\u2028two\u2029three\x85four"
    whole.say({"type": "agent.woken", "agent": name})

    async def first() -> Any:
        async with Daemon(whole.url, None) as daemon:
            return await anext(daemon.follow())

    snapshot = asyncio.run(first())
    assert f"town/{name}" in [row["key"] for row in snapshot.data["agents"]]
    whole.say({"type": "agent.released", "agent": name})


def test_a_prefetch_that_comes_to_nothing_is_a_no(busy: Whole) -> None:
    done = call("prefetch", "town/late", "--within", "0.3s", "--url", busy.url)
    assert done.exit_code == 1, done.output
    assert "expired" in done.stdout


def test_nobody_has_to_wait_and_an_operation_can_be_given_up(busy: Whole) -> None:
    (started,) = steer(busy, "prefetch", "town/late", "--no-wait")["operations"]
    assert started["state"] == "waiting" and started["ended_at"] is None
    (cancelled,) = steer(busy, "cancel", started["id"])["operations"]
    assert cancelled["state"] == "cancelled"
    assert "an operator cancelled it" in call("operations", started["id"], "--url", busy.url).stdout


def test_an_eviction_waits_until_the_item_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No emulated engine can be told to evict: this one says that it can, and that it did."""
    probe = VllmAdapter.probe

    async def able(adapter: VllmAdapter) -> EngineInfo:
        info = await probe(adapter)
        kind = MemoryKind.PREFIX_KV
        return replace(
            info, capabilities={**info.capabilities, kind: info.capabilities[kind] | Capability.EVICT}
        )

    async def evict(*_: Any, **__: Any) -> Outcome:
        return Outcome(0.0)

    monkeypatch.setattr(VllmAdapter, "probe", able)
    monkeypatch.setattr(VllmAdapter, "evict", evict)
    with (
        emulator(tmp_path) as engine,
        in_a_thread(tmp_path, engine.url, redis={"enabled": False}) as whole,
    ):
        populate(whole)
        assert call("prefetch", "town/a0", "--url", whole.url).exit_code == 0
        done = call("evict", "town/a0", "--url", whole.url)
        assert done.exit_code == 0, done.output
        assert "evict prefix_kv" in done.stdout and "it is gone" in done.stdout
        unkept = call("pause", "--url", whole.url)
        assert unkept.exit_code == 0 and "there is no Redis to keep it" in unkept.stdout


def test_the_configuration_is_shown_and_read_again(whole: Whole) -> None:
    shown = call("config", "show", "--url", whole.url)
    assert shown.exit_code == 0 and "api.port" in shown.stdout and '"active"' in shown.stdout
    assert steer(whole, "config", "show")["settings"]["mode"] == "active"
    nothing = call("config", "reload", "--url", whole.url)
    assert nothing.exit_code == 1 and nothing.stderr
    settings = whole.sidecar.settings
    planner = settings.planner.model_copy(update={"chunk_tokens": 128})
    whole.sidecar.reread = lambda: settings.model_copy(update={"planner": planner, "mode": RunMode.PAUSED})
    changed = call("config", "reload", "--url", whole.url)
    assert changed.exit_code == 0, changed.output
    for word in ("planner.chunk_tokens", "128", "holds now", "mode", '"paused"', "after a restart"):
        assert word in changed.stdout
    whole.sidecar.reread = lambda: settings
    assert steer(whole, "config", "reload")["after_restart"] == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("0.5m", 30)],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert duration(text) == seconds
