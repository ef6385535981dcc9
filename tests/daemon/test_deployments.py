"""The systemd unit and the Kubernetes example, held against the daemon's own settings, routes and times."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from scalesim_daemon.api import build_api
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ENV_PREFIX, Settings
from tests.daemon.deployments import MANIFEST, ROOT, STOPS_WITHIN, check_command, containers, manifest, pod

UNIT = ROOT / "configs" / "systemd" / "scalesimd.service"
MOST_EXPOSED = "30"
analyze = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(analyze is None, reason="systemd-analyze isn't installed")


def unit() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser["Service"]


def test_the_unit_starts_the_daemon_as_it_is() -> None:
    service = unit()
    program, *arguments = service["ExecStart"].split()
    assert Path(program).name == "scalesimd" and "--config" in arguments
    check_command(arguments)
    assert int(service["TimeoutStopSec"]) > STOPS_WITHIN
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_what_the_unit_may_write_is_what_the_daemon_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    service = unit()
    for pair in service["Environment"].split():
        monkeypatch.setenv(*pair.split("=", 1))
    settings = load_settings()
    state = Path("/var/lib") / service["StateDirectory"]
    assert state in settings.redis.data_dir.parents and state in settings.loras.links_dir.parents
    assert service["ProtectSystem"] == "strict" and settings.loras.staging_dir.parent == Path("/dev/shm")
    # What the engine has must be seen: sockets under /tmp, segments in /dev/shm.
    assert not {"PrivateTmp", "PrivateIPC", "PrivateNetwork", "DynamicUser"} & set(service)


@needs_systemd
def test_systemd_takes_the_unit_and_finds_it_closed(tmp_path: Path) -> None:
    # The program and its user aren't installed here.
    text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text())
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"(?m)^User=.*", "User=root", text))
    for arguments in (
        ("verify", str(copy)),
        ("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", str(UNIT)),
    ):
        done = subprocess.run([str(analyze), *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Unknown" not in done.stderr and "Failed to parse" not in done.stderr, done.stderr


def mounts(container: dict[str, Any]) -> dict[str, str]:
    """The volume at each path."""
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


def volume_at(container: dict[str, Any], path: Path | str) -> str | None:
    """The volume that a path lies on."""
    known = mounts(container)
    places = [str(PurePosixPath(path)), *(str(parent) for parent in PurePosixPath(path).parents)]
    return next((known[place] for place in places if place in known), None)


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"] if "value" in one}


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that the container's daemon would have."""
    for name, value in environment(containers()[0]).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SCALESIM_REDIS__URL", "redis://redis:6379/0")
    config = tmp_path / "scalesim.yaml"
    config.write_text(manifest()["ConfigMap", "scalesim"]["data"][config.name])
    return load_settings(config)


def flags(container: dict[str, Any]) -> dict[str, str]:
    return dict(one.removeprefix("--").partition("=")[::2] for one in container["args"])


def test_the_container_starts_the_daemon_as_it_is() -> None:
    daemon, _ = containers()
    check_command(daemon["args"])
    assert daemon["args"][-2] == "--config"
    assert volume_at(daemon, daemon["args"][-1]) == "config"
    assert Path(daemon["args"][-1]).name in manifest()["ConfigMap", "scalesim"]["data"]
    assert daemon["restartPolicy"] == "Always"
    assert pod()["terminationGracePeriodSeconds"] > STOPS_WITHIN


def test_engine_and_daemon_see_the_same_memory_at_the_same_paths(configured: Settings) -> None:
    daemon, engine = containers()
    (settings,) = configured.engines
    segment, loras = settings.host_tier.segment, configured.loras
    connector = json.loads(flags(engine)["kv-transfer-config"])
    assert connector["kv_connector_extra_config"]["segment"] == str(segment)
    events = json.loads(flags(engine)["kv-events-config"])
    sockets = [events[key].removeprefix("ipc://") for key in ("endpoint", "replay_endpoint")]
    for path in (segment, loras.staging_dir, loras.links_dir, *sockets):
        assert volume_at(daemon, path) == volume_at(engine, path) is not None, path
    (shm,) = (one for one in pod()["volumes"] if one["name"] == volume_at(daemon, segment))
    assert shm["emptyDir"]["medium"] == "Memory"
    room = int(shm["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 1024**3
    assert settings.host_tier.bytes + loras.staging_bytes < room


def test_ports_are_those_that_the_daemon_listens_on(configured: Settings) -> None:
    daemon, engine = containers()
    named = {port["name"]: port["containerPort"] for one in (daemon, engine) for port in one["ports"]}
    assert named["feed"] == int(configured.feed.bind.rpartition(":")[2])
    assert named["api"] == configured.api.port
    assert named["http"] == int(flags(engine)["port"]) == int(configured.engines[0].url.rpartition(":")[2])
    for (kind, _), service in manifest().items():
        for port in service["spec"]["ports"] if kind == "Service" else ():
            assert named[port["targetPort"]] == port["port"]
    policy = manifest()["NetworkPolicy", "scalesim"]["spec"]
    opened = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
    assert sorted(opened) == sorted(named.values())


def test_probes_ask_routes_that_there_are(sidecar: Sidecar) -> None:
    daemon, _ = containers()
    paths = {getattr(route, "path", "") for route in build_api(sidecar).routes}
    for probe in ("startupProbe", "livenessProbe"):
        assert daemon[probe]["httpGet"]["path"] in paths and daemon[probe]["httpGet"]["port"] == "api"


def test_the_pod_is_locked_and_writes_to_its_volumes_alone(configured: Settings) -> None:
    daemon, _ = containers()
    assert pod()["securityContext"]["runAsNonRoot"]
    user = re.search(r"--uid (\d+)", (ROOT / "Dockerfile").read_text())
    assert user is not None and pod()["securityContext"]["runAsUser"] == int(user[1])
    for container in containers():
        locked = container["securityContext"]
        assert locked["readOnlyRootFilesystem"] and not locked["allowPrivilegeEscalation"]
        assert locked["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= {
            one["name"] for one in pod()["volumes"]
        }
    for path in (configured.loras.links_dir, configured.loras.staging_dir, configured.redis.data_dir):
        assert volume_at(daemon, path) is not None


def test_tokens_are_in_a_secret_and_not_here() -> None:
    daemon, _ = containers()
    (tokens,) = (one["secret"]["secretName"] for one in pod()["volumes"] if "secret" in one)
    files = {name: value for name, value in environment(daemon).items() if "TOKEN" in name}
    assert files and all(volume_at(daemon, value) == "tokens" for value in files.values())
    named = {one["valueFrom"]["secretKeyRef"]["name"] for one in daemon["env"] if "valueFrom" in one}
    assert named == {tokens}
    assert all(name.startswith(ENV_PREFIX) for name in environment(daemon))
    created = set(re.findall(r"--from-literal=(\w+)", MANIFEST.read_text()))
    assert {Path(value).name for value in files.values()} | {"redis"} == created
    assert ("Secret", tokens) not in manifest()
