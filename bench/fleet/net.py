"""Hosts on one machine, each with a network of its own, around a router that loses what it is told to lose.

All of it lies in namespaces of the command that `inside` starts, and goes with it, as do all processes that it has
started. It takes root, or a user who may have namespaces; `missing` says what else can't be had.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from bench.fleet.schedule import Kind

REMEDY = (
    "run it as root, or let users have namespaces of their own (sysctl kernel.unprivileged_userns_clone=1, and where "
    "AppArmor forbids it kernel.apparmor_restrict_unprivileged_userns=0), with iproute2 and util-linux installed"
)
NEEDED = ("unshare", "nsenter", "mount", "ip", "tc")
# Of a link that is slow: some of the daemons' messages wait for a second.
NARROW = ("tbf", "rate", "200kbit", "burst", "4kb", "latency", "2s")
LATE = ("netem", "delay", "120ms", "60ms")


class Host(NamedTuple):
    """One of them: its address, the router's interface to it, and the command that starts another there."""

    name: str
    address: str
    link: str

    @property
    def command(self) -> list[str]:
        """What starts a command there."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--"]


class Network:
    """The router is this process's own network."""

    def __init__(self) -> None:
        _run("mount", "-t", "tmpfs", "scalesim-fleet", "/run")
        _run("ip", "link", "set", "lo", "up")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self._hosts = 0

    def host(self, name: str) -> Host:
        """Add one."""
        self._hosts += 1
        near, far = f"10.77.{self._hosts}.1", f"10.77.{self._hosts}.2"
        host = Host(name, far, f"to-{name}")
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "address", "add", f"{near}/24", "dev", host.link)
        _run("ip", "link", "set", host.link, "up")
        _run("ip", "-n", name, "address", "add", f"{far}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _run("ip", "-n", name, "link", "set", link, "up")
        _run("ip", "-n", name, "route", "add", "default", "via", near)
        return host

    @contextmanager
    def lost(self, *ways: tuple[Host, Host]) -> Iterator[None]:
        """What is sent these ways, from one host to another, is lost, and nobody hears of it."""
        rules = [("from", sender.address, "to", receiver.address, "blackhole") for sender, receiver in ways]
        for rule in rules:
            _run("ip", "rule", "add", *rule)
        try:
            yield
        finally:
            for rule in rules:
                _run("ip", "rule", "del", *rule)

    @contextmanager
    def unplugged(self, host: Host) -> Iterator[None]:
        """A host has no link."""
        _run("ip", "link", "set", host.link, "down")
        try:
            yield
        finally:
            _run("ip", "link", "set", host.link, "up")

    @contextmanager
    def shaped(self, host: Host, *how: str) -> Iterator[None]:
        """A host's link queues what it carries, both ways."""
        ends = (("tc", "qdisc"), "dev", host.link), (("tc", "-n", host.name, "qdisc"), "dev", "eth0")
        try:
            for tc, *link in ends:
                _run(*tc, "add", *link, "root", *how)
            yield
        finally:
            for tc, *link in ends:
                with suppress(OSError):  # The first may have failed.
                    _run(*tc, "del", *link, "root")


def inside(command: Sequence[str]) -> list[str]:
    """Return the command that starts another with namespaces of its own."""
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    kinds = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    return ["unshare", *user, *kinds, "--", *command]


def missing() -> dict[Kind, str]:
    """Return the faults that can't be had on this machine, and why. Raises `OSError` with the remedy where there can be
    no such network at all."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        raise OSError(f"not found: {', '.join(absent)}: {REMEDY}")
    tried = subprocess.run(inside([sys.executable, "-m", "bench.fleet.net"]), capture_output=True, text=True)
    if tried.returncode:
        why = tried.stderr.strip().splitlines() or ["no reason was given"]
        raise OSError(f"no network namespaces here ({why[-1]}): {REMEDY}")
    return {Kind(kind): why for kind, why in json.loads(tried.stdout).items()}


def _run(*command: str) -> None:
    """Raises `OSError` with what it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


def main() -> None:
    """Try everything, and print what can't be had as JSON."""
    network = Network()
    one, other = network.host("one"), network.host("other")
    with network.lost((one, other)), network.unplugged(one):
        pass
    found: dict[Kind, str] = {}
    for kind, how in ((Kind.HOST_SLOW, NARROW), (Kind.HOST_LATE, LATE)):
        try:
            with network.shaped(one, *how):
                pass
        except OSError as error:
            found[kind] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
