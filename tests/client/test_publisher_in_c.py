"""What a program that links the publisher in C gets, besides what it says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.client.speakers import CLIENT, built

# The first test of a language builds it.
pytestmark = [pytest.mark.publishers, pytest.mark.timeout(180)]

LIBRARY = CLIENT / "c" / "build" / "checked" / "libscalesim.a"
SANITIZED = ("-fsanitize=address,undefined",)
IN_CPP = """
#include "scalesim.h"
int main() {
    scalesim_move where = SCALESIM_NOWHERE;
    scalesim_plan plan = SCALESIM_NO_PLAN;
    scalesim *none = scalesim_open("a/b", nullptr);
    scalesim_close(none);
    return none != nullptr || where.place != nullptr || plan.count != 0;
}
"""


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_no_name_of_the_library_is_one_that_a_program_may_have() -> None:
    built("c")
    lines = output("nm", "-g", "--defined-only", str(LIBRARY)).splitlines()
    # The sanitizer marks each variable by a further name of its own.
    names = [line.split()[-1].removeprefix("__odr_asan.") for line in lines if " " in line]
    assert "scalesim_open" in names
    assert [name for name in names if not name.startswith(("scalesim_", "ss_"))] == []


def test_warnings_stay_on_whatever_flags_are_given() -> None:
    built("c")
    commands = output("make", "-B", "-n", "-C", f"{CLIENT}/c", "CFLAGS=-O0").splitlines()
    compilations = [command for command in commands if "-O0" in command]
    assert compilations and all("-Wextra" in command for command in compilations)


def test_a_program_in_cpp_links_it(tmp_path: Path) -> None:
    built("c")
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    source, program = tmp_path / "program.cpp", tmp_path / "program"
    source.write_text(IN_CPP)
    flags = (
        "-std=c++11",
        "-pedantic-errors",
        "-Wall",
        "-Wextra",
        "-Werror",
        *SANITIZED,
        f"-I{CLIENT}/c",
        "-pthread",
    )
    output("g++", *flags, str(source), str(LIBRARY), "-lzmq", "-lm", "-o", str(program))
    output(str(program))
