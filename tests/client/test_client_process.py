"""What concerns a simulation's whole process: what an import brings in, how it ends, how it forks."""

from __future__ import annotations

import subprocess
import sys

from router import Router

IMPORTED = """
import sys
before = set(sys.modules)
import scalesim_client
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(tops - sys.stdlib_module_names))
"""

NEVER_CLOSED = """
import sys
from scalesim_client import Publisher
publisher = Publisher("village", address=sys.argv[1])
publisher.step(1)
raise SystemExit("the simulation fails")
"""

FORKED = """
import os, sys
from scalesim_client import Publisher
publisher = Publisher("village", address=sys.argv[1])
child = os.fork()
publisher.step(2 if child else 1)
if child:
    _, status = os.waitpid(child, 0)
    publisher.close()
    sys.exit(os.waitstatus_to_exitcode(status))
"""


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_import_brings_in_two_libraries_alone() -> None:
    with python(IMPORTED) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert set(out.split()) - {"_cython_3_1_2"} >= {"msgpack", "scalesim_client", "zmq"}
    foreign = {name for name in out.split() if not name.startswith(("_cython", "cython_runtime"))}
    assert foreign == {"msgpack", "scalesim_client", "zmq"}


def test_a_simulation_that_ends_without_closing_is_closed() -> None:
    with Router() as router, python(NEVER_CLOSED, router.address) as process:
        router.welcome()
        heard = router.events_until(lambda event: event["type"] == "stream.closed")
        _, err = process.communicate(timeout=30)
    assert heard == [{"type": "step.advanced", "now": 1}, {"type": "stream.closed"}]
    assert err == "the simulation fails\n"


def test_a_forked_child_stays_silent() -> None:
    with Router() as router, python(FORKED, router.address) as process:
        router.welcome()
        heard = router.events_until(lambda event: event["type"] == "stream.closed")
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert heard == [{"type": "step.advanced", "now": 2}, {"type": "stream.closed"}]
