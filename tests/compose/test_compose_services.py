"""docker-compose.yml with the emulated engine, for real: built, started, told of agents from a container, and its parts
killed one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.compose.services import (
    API,
    ENGINE,
    PROFILES,
    ROOT,
    SERVICES,
    Services,
    agent,
    ask,
    complete,
    compose,
    composers,
    docker,
    is_resident,
    missing,
    registered,
    succeeds,
    until,
)
from tests.compose.village import AGENTS, PREFIX_TOKENS, SIMULATION, prefix

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1200)]
# As many as have a slot for their LoRA.
NEAR = AGENTS[:2]
DUES = f"ss:{{{SIMULATION}}}:due:step"
EXPECTED_DUES = {name: float(steps) for steps, name in enumerate(AGENTS, start=1)}
FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
# A model is downloaded meanwhile.
PULLED_WITHIN = 1000.0


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """All services with the village beside them, and the memory of its nearest agents where it is needed."""
    why = missing()
    if why is not None:
        pytest.skip(why)
    services = Services()
    try:
        services.start()
        services.play()
        until_resident()
        yield services
    finally:
        services.remove()


def until_resident() -> None:
    until(lambda: all(map(is_resident, NEAR)), "the nearest agents' memory is on the device")


def dues(services: Services) -> dict[str, float]:
    """The village's dues as Redis has them."""
    told = services.redis("zrange", DUES, "0", "-1", "withscores")
    return dict(zip(told[::2], map(float, told[1::2]), strict=True))


@pytest.mark.parametrize("composer", [("docker", "compose"), ("docker-compose",)], ids=" ".join)
def test_the_file_is_valid(composer: tuple[str, ...]) -> None:
    if composer not in composers():
        pytest.skip(f"{' '.join(composer)} isn't installed")
    for profile in PROFILES:
        listed = compose("config", "--services", composer=composer, profiles=[profile]).split()
        assert {"redis", "scalesimd"} < set(listed), profile


@pytest.mark.parametrize("service", SERVICES)
def test_services_run_locked(services: Services, service: str) -> None:
    told = services.inspect(service)
    host = told["HostConfig"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"]
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert told["State"]["Health"]["Status"] == "healthy"
    status, uid = services.shell(service, "id -u")
    assert status == 0 and int(uid) > 0
    facts = services.shell(service, "grep -E '^(CapEff|CapBnd|NoNewPrivs):' /proc/1/status")[1].split()
    assert dict(zip(facts[::2], facts[1::2], strict=True)) == {
        "CapEff:": "0000000000000000",
        "CapBnd:": "0000000000000000",
        "NoNewPrivs:": "1",
    }
    # Not even root could.
    for place in ("/usr/bin", "/etc", "/opt"):
        status, said = services.shell(service, f"touch {place}/written", user="0")
        assert status != 0 and "Read-only file system" in said, said


def test_memory_follows_what_a_container_says(services: Services) -> None:
    assert ask(f"{API}/v1/sources")["sources"][0]["simulation"] == SIMULATION
    assert agent(NEAR[0])["distance"] == 1.0
    assert set(registered()) == set(AGENTS)
    for name in NEAR:
        assert complete(name, prefix(name)) == PREFIX_TOKENS - 32, (
            "all but the block of the prompt's last token"
        )
    until(lambda: dues(services) == EXPECTED_DUES, "all dues are in Redis")


def test_a_killed_engine_gets_its_memory_back(services: Services) -> None:
    before = ask(f"{API}/v1/engines")["engines"][0]["incarnation"]
    services.kill("emulator")
    until(lambda: not ask(f"{API}/v1/engines")["engines"][0]["reachable"], "the daemon has noticed")
    assert ask(f"{API}/health")["alive"]
    services.up("emulator")
    until(lambda: set(registered()) == set(AGENTS), "the engine knows all LoRAs again")
    until_resident()
    assert ask(f"{API}/v1/engines")["engines"][0]["incarnation"] != before
    assert complete(NEAR[0], prefix(NEAR[0])) == PREFIX_TOKENS - 32


def test_a_killed_redis_has_kept_what_operators_decided(services: Services) -> None:
    pinned = f"{SIMULATION}/{NEAR[1]}"
    assert ask(f"{API}/v1/pins/{pinned}", {"seconds": 3600}, "PUT")["not_kept"] is None
    services.kill("redis")
    until(lambda: ask(f"{API}/ready") is None, "the daemon has noticed")
    assert ask(f"{API}/health")["alive"] and all(map(is_resident, NEAR))
    services.up("redis")
    assert services.redis("hexists", "ss:intent", f"pin:{pinned}") == ["1"]
    until(lambda: dues(services) == EXPECTED_DUES and ask(f"{API}/ready") is not None, "Redis is in step")


def test_a_killed_daemon_finds_everything_again(services: Services) -> None:
    links = registered()
    services.kill("scalesimd")
    assert ask(f"{API}/health") is None
    # Nobody waits for it, and what Redis has of it stays.
    assert complete(NEAR[0], prefix(NEAR[0])) == PREFIX_TOKENS - 32 and dues(services) == EXPECTED_DUES
    services.up("scalesimd")
    until_resident()
    assert agent(NEAR[1])["pinned_until"] is not None
    assert registered() == links
    until(lambda: dues(services) == EXPECTED_DUES, "the dues are as they were")


def test_the_engine_serves_every_lora_without_us(services: Services) -> None:
    known, engine = registered(), services.inspect("emulator")["State"]
    services.end_ours()
    assert not services.container("scalesimd") and not services.container("redis")
    now = services.inspect("emulator")["State"]
    assert now["Running"] and now["StartedAt"] == engine["StartedAt"]
    assert registered() == known and set(known) == set(AGENTS)
    for link in known.values():
        assert services.shell("emulator", f"test -L {link} && cat {link}/adapter_config.json")[0] == 0, link
    # It has room for fewer LoRAs than there are, so that it reads them again.
    for name in [*AGENTS, *AGENTS]:
        assert complete(name, prefix(name)) is not None, name
    services.up()
    until_resident()
    assert registered() == known


def test_a_stop_is_no_kill(services: Services) -> None:
    for service in SERVICES[1:]:
        services.compose("stop", service)
        assert services.inspect(service)["State"]["ExitCode"] == 0, service
    services.up()
    until_resident()


@pytest.mark.parametrize("profile", ["obs", "vllm", "sglang"])
def test_public_images_start(services: Services, profile: str) -> None:
    started = {name: one for name, one in FILE["services"].items() if one.get("profiles") == [profile]}
    for image in [one["image"] for one in started.values()]:
        if not succeeds("docker", "image", "inspect", image):
            pytest.skip(f"not started: {', '.join(started)}; docker pull {image}")
    if "deploy" in started.get(profile, {}):
        if "nvidia" not in docker("info", "--format", "{{json .Runtimes}}"):
            pytest.skip(f"not started: {profile} needs a GPU and the NVIDIA Container Toolkit")
        services.compose("rm", "--stop", "--force", "emulator")
    services.compose("up", "--detach", *started, profiles=[profile])
    for name in started:
        services.until_healthy(name, PULLED_WITHIN)
    if profile == "obs":
        scraped = "http://127.0.0.1:9090/api/v1/query?query=up"
        until(lambda: ask(scraped)["data"]["result"][0]["value"][1] == "1", "Prometheus scrapes the daemon")
        assert [one["title"] for one in ask("http://127.0.0.1:3000/api/search?type=dash-db")]
    else:
        assert ask(f"{ENGINE}/v1/models")["data"]
    services.compose("rm", "--stop", "--force", *started, profiles=[profile])
    services.up()
