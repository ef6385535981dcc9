"""docker-compose.yml, held against the daemon's settings and times, the plug-ins' files, and the other deployments."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from configparser import RawConfigParser
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from scalesim_daemon.setting_sources import load_settings, parse_engine
from scalesim_daemon.settings import Settings
from tests.daemon.deployments import ROOT, STOPS_WITHIN, check_command, containers, pod

VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
PINNED = re.compile(r"[\w./-]+:v?\d+\.[\w.-]+")
ENGINES = ("emulator", "vllm", "sglang")
PLUGGED = ("vllm", "sglang")
ENTRY_POINTS = ROOT / "configs" / "entry_points"


def filled(**variables: str) -> dict[str, Any]:
    """The file's services as they are where nothing but these variables is set."""
    text = VARIABLE.sub(
        lambda found: variables.get(found[1], found[2] or ""), (ROOT / "docker-compose.yml").read_text()
    )
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return services


@cache
def services() -> dict[str, Any]:
    return filled()


def mounts(name: str) -> dict[str, tuple[str, bool]]:
    """What is mounted at each path of a service, and whether it may be written."""
    found = {}
    for volume in services()[name]["volumes"]:
        source, target, *mode = volume.split(":")
        found[target] = (source, mode != ["ro"])
    return found


def mount_at(name: str, path: Path | str) -> tuple[str, bool] | None:
    """What a path of a service lies on."""
    known = mounts(name)
    places = [str(PurePosixPath(path)), *(str(parent) for parent in PurePosixPath(path).parents)]
    return next((known[place] for place in places if place in known), None)


def flags(name: str) -> dict[str, str]:
    return dict(one.removeprefix("--").partition("=")[::2] for one in services()[name]["command"])


def shared_paths(name: str) -> list[str]:
    """What an engine's flags say of files and sockets that the daemon or the next start of the engine uses."""
    told = flags(name)
    events = json.loads(told.get("kv-events-config", "{}")) | {
        key.replace("-", "_"): value for key, value in told.items()
    }
    paths = [events[key].removeprefix("ipc://") for key in ("endpoint", "replay_endpoint")]
    for flag in ("kv-transfer-config", "hicache-storage-backend-extra-config"):
        extra = json.loads(told.get(flag, "{}"))
        segment = extra.get("kv_connector_extra_config", extra).get("segment")
        paths += [segment] if segment else []
    return paths


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that the service's daemon has."""
    daemon = services()["scalesimd"]
    for name, value in daemon["environment"].items():
        if value is not None:
            monkeypatch.setenv(name, value)
    given = dict(zip(daemon["command"][1::2], daemon["command"][2::2], strict=True))
    engine, redis = parse_engine(given["--engine"]), given["--redis"]
    return load_settings(None, {"engines": [engine], "redis": {"url": redis}})


@pytest.mark.parametrize("name", services())
def test_each_service_is_pinned_watched_and_locked(name: str) -> None:
    service = services()[name]
    assert PINNED.fullmatch(service["image"]) and "latest" not in service["image"]
    assert service["healthcheck"]["test"][0] == "CMD" and service["healthcheck"]["retries"]
    assert int(service["user"].partition(":")[0]) > 0
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"] and "privileged" not in service
    assert service["restart"] == "unless-stopped"
    assert int(service["stop_grace_period"].removesuffix("s")) > 10
    assert service["logging"]["options"]["max-size"]


def test_the_daemon_starts_as_it_is_and_has_time_to_stop(configured: Settings) -> None:
    daemon = services()["scalesimd"]
    check_command(daemon["command"])
    assert int(daemon["stop_grace_period"].removesuffix("s")) > STOPS_WITHIN
    assert daemon["depends_on"]["redis"]["condition"] == "service_healthy"
    redis = services()["redis"]["command"]
    port = redis[redis.index("--port") + 1]
    assert str(configured.redis.url).startswith(f"redis://127.0.0.1:{port}/")
    assert port in services()["redis"]["healthcheck"]["test"]
    assert f":{configured.api.port}/health" in daemon["healthcheck"]["test"][-1]
    assert all(name.startswith(("SCALESIM_", "OTEL_")) for name in daemon["environment"])


def test_beside_an_engine_that_runs_it_is_one_url() -> None:
    daemon = filled(ENGINE_KIND="sglang", ENGINE_URL="http://127.0.0.1:30000")["scalesimd"]
    assert parse_engine(daemon["command"][2]) == {"kind": "sglang", "url": "http://127.0.0.1:30000"}
    assert set(daemon["depends_on"]) == {"redis"} and "profiles" not in daemon


@pytest.mark.parametrize("name", ENGINES)
def test_engine_and_daemon_see_the_same_memory_at_the_same_paths(name: str, configured: Settings) -> None:
    loras = configured.loras
    for path in (loras.links_dir, loras.staging_dir, *shared_paths(name)):
        assert mount_at(name, path) == mount_at("scalesimd", path) == ("/dev/shm", True), path
    asked = filled(LORAS="/data/loras", SHM="/memory")
    for mounted in ("/data/loras:/data/loras:ro", "/memory:/dev/shm"):
        assert mounted in asked[name]["volumes"] and mounted in asked["scalesimd"]["volumes"]
    assert services()[name]["user"] == services()["scalesimd"]["user"]
    assert "depends_on" not in services()[name]


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_listens_where_the_daemon_looks(name: str, configured: Settings) -> None:
    (engine,) = configured.engines
    assert engine.url == f"http://127.0.0.1:{flags(name)['port']}"
    assert f"{engine.url}/health" in services()[name]["healthcheck"]["test"][-1]
    assert services()[name]["profiles"] == [name]


@pytest.mark.parametrize("name", PLUGGED)
def test_the_plug_in_is_mounted_and_not_baked_in(name: str, configured: Settings) -> None:
    engine = services()[name]
    assert "build" not in engine
    for place in engine["environment"]["PYTHONPATH"].split(":"):
        source, writable = mounts(name)[place]
        assert (ROOT / source).is_dir() and not writable
    for module in re.findall(r"scalesim_adapters(?:\.[a-z]\w*)+", "\n".join(engine["command"])):
        path = ROOT / "adapters" / module.replace(".", "/")
        assert path.with_suffix(".py").exists(), module
    told = json.loads(flags(name).get("additional-config", "{}")).get("scalesim", {}).get("dues")
    assert configured.broadcast.bind == (told or engine["environment"]["SCALESIM_DUES"])
    (device,) = engine["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]


def test_mounted_sources_have_the_entry_points_of_the_installed_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (metadata,) = ENTRY_POINTS.glob("*.dist-info")
    told = RawConfigParser(delimiters=("=",))
    told.read(metadata / "entry_points.txt")
    assert {name: dict(told[name]) for name in told.sections()} == project["entry-points"]
    assert (
        f"\nName: {project['name']}\nVersion: {project['version']}\n" in (metadata / "METADATA").read_text()
    )
    assert services()["scalesimd"]["image"].endswith(f":{project['version']}")
    # As an engine's interpreter finds them, which has nothing of ours installed.
    ask = "import importlib.metadata as m; print(*(p.value for p in m.entry_points(name='scalesim')), sep='\\n')"
    found = subprocess.run(
        [sys.executable, "-S", "-c", ask],
        env={"PYTHONPATH": str(ENTRY_POINTS)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert sorted(found) == sorted(point["scalesim"] for point in project["entry-points"].values())


def test_what_watches_is_provisioned() -> None:
    prometheus, grafana = mounts("prometheus"), mounts("grafana")
    config = yaml.safe_load((ROOT / prometheus[flags("prometheus")["config.file"]][0]).read_text())
    for rules in config["rule_files"]:
        assert (ROOT / prometheus[f"/etc/prometheus/{rules}"][0]).exists()
    provisioning = ROOT / grafana["/etc/grafana/provisioning"][0]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == f"http://{flags('prometheus')['web.listen-address']}"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "scalesim.yml").read_text())["providers"]
    dashboards, writable = grafana[provider["options"]["path"]]
    assert list((ROOT / dashboards).glob("*.json")) and not writable
    assert services()["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


def test_deployments_agree() -> None:
    daemon, engine = containers()
    assert services()["vllm"]["image"] == engine["image"]
    assert daemon["image"].endswith(services()["scalesimd"]["image"])
    user, group = pod()["securityContext"]["runAsUser"], pod()["securityContext"]["runAsGroup"]
    assert services()["scalesimd"]["user"] == f"{user}:{group}"
    asked = {one["name"] for one in engine["env"]}
    assert {"VLLM_ALLOW_RUNTIME_LORA_UPDATING", "HOME", "USER"} <= asked & services()["vllm"][
        "environment"
    ].keys()
    # Images of our own start from a pinned one, too.
    base = re.search(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None and PINNED.fullmatch(base[1])
