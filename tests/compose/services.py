"""docker-compose.yml's services while they run, under a project of their own. `python -m tests.compose.services` tells
whether they can be started here, and what is missing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from tests.adapters.emulator_rig import make_lora
from tests.compose.village import AGENTS, SIMULATION

ROOT = Path(__file__).parents[2]
PROJECT = "scalesim-compose-test"
IMAGE = "scalesim-sidecar:0.1.0"
VILLAGE = f"{PROJECT}-village"
API, ENGINE = "http://127.0.0.1:8700", "http://127.0.0.1:8000"
REDIS_PORT = 6399
PORTS = (5600, 5601, REDIS_PORT, 8000, 8700)
PROFILES = ("emulator", "vllm", "sglang", "obs")
SERVICES = ("redis", "scalesimd", "emulator")
BUILT_WITHIN, WITHIN = 900.0, 120.0


@cache
def composers() -> tuple[tuple[str, ...], ...]:
    """Return the Docker Compose commands that are installed, the one to use first."""
    asked = (("docker", "compose"), ("docker-compose",))
    return tuple(command for command in asked if shutil.which(command[0]) and succeeds(*command, "version"))


def missing() -> str | None:
    """Return what keeps the services from being started here, with the remedy; None where nothing does."""
    if shutil.which("docker") is None:
        return "there is no Docker client: install docker-ce-cli, or Debian's docker.io"
    if not composers():
        return "there is no Docker Compose: install docker-compose-plugin, or docker-compose 1.28 or later"
    if not succeeds("docker", "version"):
        where = os.environ.get("DOCKER_HOST", "the default socket")
        return f"no Docker engine answers at {where}: start one (systemctl start docker), or name one in DOCKER_HOST"
    remove_left()
    taken = [port for port in PORTS if _is_taken(port)]
    if taken:
        return f"ports of loopback that docker-compose.yml needs are taken: {taken}; stop what listens there"
    return None


def succeeds(*command: str) -> bool:
    """Run a command, and return whether it ended well."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _is_taken(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


def run(*command: str, within: float = WITHIN, **variables: str) -> str:
    """Return what a command prints. Raises `AssertionError` with all it said where it fails."""
    known = {name: value for name, value in os.environ.items() if name.startswith(("DOCKER", "HOME", "PATH"))}
    done = subprocess.run(
        command, cwd=ROOT, env=known | variables, capture_output=True, text=True, timeout=within, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def docker(*arguments: str) -> str:
    """Return what a docker command prints."""
    return run("docker", *arguments)


def compose(
    *arguments: str, composer: Sequence[str] = (), profiles: Sequence[str] = (), **options: Any
) -> str:
    """Return what a command of Docker Compose prints."""
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    return run(*(composer or composers()[0]), "--project-name", PROJECT, *chosen, *arguments, **options)


def remove_left() -> None:
    """Remove the project's containers and volumes; there may be none."""
    compose("down", "--volumes", profiles=PROFILES)
    if docker("ps", "--all", "--quiet", "--filter", f"name={VILLAGE}"):
        docker("rm", "--force", VILLAGE)


def until(holds: Callable[[], bool], what: str, within: float = WITHIN) -> None:
    """Ask again and again until it holds."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"it never came to hold: {what}"
        time.sleep(0.1)


def ask(url: str, body: Any = None, method: str | None = None) -> Any:
    """Return a route's answer; None where nothing answers, or not with a 200."""
    try:
        answer = httpx.request(method or ("GET" if body is None else "POST"), url, json=body, timeout=30)
    except httpx.TransportError:
        return None
    return (answer.json() if answer.content else {}) if answer.status_code == 200 else None


class Services:
    """Redis, the sidecar and the emulated engine, built and started; LoRAs for them lie in `loras`."""

    def __init__(self) -> None:
        # As containers see them: others may look in, and may write to what is shared.
        self._shm = Path(tempfile.mkdtemp(prefix="scalesim-", dir="/dev/shm"))
        self._shm.chmod(0o1777)
        self.loras = Path(tempfile.mkdtemp(prefix="scalesim-", dir="/var/tmp"))
        self.loras.chmod(0o755)
        for number, agent in enumerate(AGENTS, start=8):
            make_lora(self.loras / agent, rank=number)

    def start(self) -> None:
        """Build the image, start all services, and wait until each says that it is healthy."""
        self.compose("build", within=BUILT_WITHIN)
        self.compose("up", "--no-start")
        # In the public image /data is the user's of the service; one of the same name may be made otherwise.
        redis_image = json.loads(docker("inspect", self.container("redis")))[0]["Config"]["Image"]
        mount = ("--volume", f"{PROJECT}_redis:/data")
        docker("run", "--rm", "--user=0", "--entrypoint=chown", *mount, redis_image, "999:999", "/data")
        self.up()

    def compose(self, *arguments: str, profiles: Sequence[str] = ("emulator",), **options: Any) -> str:
        """Run a command of Docker Compose on these services."""
        return compose(*arguments, profiles=profiles, LORAS=str(self.loras), SHM=str(self._shm), **options)

    def up(self, *services: str) -> None:
        """Start what isn't there, and wait until each service that is asked for (default: all) is healthy."""
        self.compose("up", "--detach", *services)
        for service in services or SERVICES:
            self.until_healthy(service)

    def until_healthy(self, service: str, within: float = WITHIN) -> None:
        """Wait until a service's own check says that it is healthy."""
        until(lambda: self.health(service) == "healthy", f"{service} is healthy", within)

    def kill(self, service: str) -> None:
        """End a service as a crash does."""
        self.compose("kill", "-s", "SIGKILL", service)

    def end_ours(self) -> None:
        """Take the sidecar and its Redis away, and leave the engine."""
        self.compose("rm", "--stop", "--force", "scalesimd", "redis")

    def container(self, service: str) -> str:
        """Return the id of a service's container, nothing where there is none."""
        label = "label=com.docker.compose"
        which = ("--filter", f"{label}.project={PROJECT}", "--filter", f"{label}.service={service}")
        return docker("ps", "--all", "--quiet", *which).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what Docker tells of a service's container."""
        (told,) = json.loads(docker("inspect", self.container(service)))
        return dict(told)

    def health(self, service: str) -> str:
        """Return what the service's health check came to."""
        return str(self.inspect(service)["State"]["Health"]["Status"])

    def shell(self, service: str, command: str, *, user: str | None = None) -> tuple[int, str]:
        """Run a line of shell in a service's container; return its exit status and what it said."""
        who = ["--user", user] if user else []
        done = subprocess.run(
            ["docker", "exec", *who, self.container(service), "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def redis(self, *arguments: str) -> list[str]:
        """Return the lines that a command of Redis answers with."""
        command = ("redis-cli", "-p", str(REDIS_PORT), *arguments)
        return docker("exec", self.container("redis"), *command).splitlines()

    def play(self) -> None:
        """Start the village, in a container of the sidecar's own image."""
        script = Path(__file__).with_name("village.py")
        docker(
            *("run", "--detach", "--name", VILLAGE, "--network=host", "--read-only", "--user=10001:10001"),
            *("--cap-drop=ALL", "--volume", f"{script}:/village.py:ro", "--entrypoint=python3"),
            *(IMAGE, "/village.py", str(self.loras)),
        )

    def remove(self) -> None:
        """Remove all that was made, images apart."""
        remove_left()
        # What is shared belongs to the containers' user.
        clear = ("find", "/dev/shm", "-mindepth", "1", "-delete")
        docker(
            *(
                "run",
                "--rm",
                "--user=0",
                "--volume",
                f"{self._shm}:/dev/shm",
                "--entrypoint",
                clear[0],
                IMAGE,
            ),
            *clear[1:],
        )
        self._shm.rmdir()
        shutil.rmtree(self.loras)


def agent(name: str) -> dict[str, Any]:
    """Return what the daemon tells of an agent of the village; nothing where it doesn't."""
    return ask(f"{API}/v1/agents/{SIMULATION}/{name}") or {}


def is_resident(name: str) -> bool:
    """Whether all of an agent's prefix is on the engine's device, as the daemon tells, and its LoRA, as it thinks."""
    places = {place["kind"]: place for place in agent(name).get("places", ())}
    if set(places) != {"prefix_kv", "lora"}:
        return False
    prefix, lora = places["prefix_kv"], places["lora"]
    return (
        prefix["resident_blocks"] == prefix["blocks"]
        and prefix["residency"] == "resident"
        and all("device" in place["tiers"] for place in places.values())
        and bool(lora["registered"])
    )


def complete(model: str, prompt: list[int]) -> int | None:
    """Let the engine continue a prompt; return how many of its tokens were cached, None where it isn't answered."""
    body = {"model": model, "prompt": prompt, "max_tokens": 1, "session_id": f"{SIMULATION}/{model}"}
    answer = ask(f"{ENGINE}/v1/completions", body)
    return None if answer is None else int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def registered() -> dict[str, str]:
    """Return the LoRAs that the engine answers to, and the path that each is loaded from."""
    models = (ask(f"{ENGINE}/v1/models") or {"data": []})["data"]
    return {model["id"]: model["root"] for model in models if model["parent"] is not None}


if __name__ == "__main__":
    why = missing()
    if why is not None:
        sys.exit(f"docker-compose.yml can't be started here: {why}")
