from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.demo import preflight

CPU = frozenset(preflight.CPU_FLAGS)


def test_a_fit_machine_has_no_problems() -> None:
    assert not [
        *preflight.python_problems((3, 11)),
        *preflight.platform_problems("Linux", "x86_64", (2, 36)),
        *preflight.cpu_problems(CPU | {"sse4_2"}),
        *preflight.room_problems(8.0, 20.0, installed=False),
    ]


@pytest.mark.parametrize("version", [(3, 10), (3, 15)])
def test_names_the_python_to_install(version: tuple[int, int]) -> None:
    (problem,) = preflight.python_problems(version)
    assert f"{version[0]}.{version[1]}" in problem.what
    assert "PYTHON=python3.11" in problem.remedy


@pytest.mark.parametrize(
    ("system", "machine", "glibc", "word"),
    [
        ("Darwin", "arm64", (0, 0), "Darwin on arm64"),
        ("Linux", "aarch64", (2, 36), "aarch64"),
        ("Linux", "x86_64", (2, 27), "glibc 2.27"),
    ],
)
def test_names_the_platform(system: str, machine: str, glibc: tuple[int, int], word: str) -> None:
    (problem,) = preflight.platform_problems(system, machine, glibc)
    assert word in problem.what
    assert "ENGINE=emulator" in problem.remedy


def test_names_each_lacking_cpu_flag() -> None:
    (problem,) = preflight.cpu_problems(CPU - {"avx2", "fma"})
    assert "avx2, fma" in problem.what


def test_room_counts_the_disk_only_before_installation() -> None:
    memory, disk = preflight.room_problems(1.5, 2.0, installed=False)
    assert "1.5 GiB of memory" in memory.what
    assert "2.0 GiB of disk" in disk.what
    assert [memory] == list(preflight.room_problems(1.5, 2.0, installed=True))


def test_an_index_that_does_not_answer_is_a_problem(tmp_path: Path) -> None:
    pip = tmp_path / "pip.py"
    pip.write_text("import sys; sys.exit('ERROR: no such index')")
    (problem,) = preflight.index_problems([sys.executable, str(pip)])
    assert "no such index" in problem.what
    assert "PIP_INDEX_URL" in problem.remedy
    pip.write_text("")
    assert not list(preflight.index_problems([sys.executable, str(pip)]))


def test_main_exits_with_the_remedies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["preflight", "--engine", "vllm"])
    monkeypatch.setattr(preflight.platform, "machine", lambda: "riscv64")
    with pytest.raises(SystemExit) as end:
        preflight.main()
    assert end.value.code == 1
    assert "remedy: use such a machine" in capsys.readouterr().err


def test_the_emulator_needs_only_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.platform, "machine", lambda: "riscv64")
    assert not list(preflight.problems("emulator"))
