"""What the plug-in brings into vLLM's processes, and what it does in one whose version it doesn't know: nothing."""

from __future__ import annotations

import subprocess
import textwrap

import pytest

from bench.rig import vllm

pytestmark = pytest.mark.engine


def in_vllm(code: str) -> str:
    """Run code in the engine's environment; return what it said, standard error included."""
    if not vllm.installed():
        pytest.skip(f"vLLM is not installed: {vllm.REMEDY}")
    done = subprocess.run(
        [str(vllm.VENV / "bin" / "python"), "-c", textwrap.dedent(code)],
        env={**vllm.ENVIRONMENT, "PYTHONPATH": str(vllm.SHIM), "VLLM_PLUGINS": "scalesim"},
        cwd=vllm.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_it_brings_nothing_but_itself() -> None:
    in_vllm("""
        import sys
        from importlib.metadata import entry_points
        for group in ("vllm.general_plugins", "vllm.endpoint_plugins"):
            (point,) = entry_points(group=group, name="scalesim")
            point.load()
        ours = {name for name in sys.modules if name.startswith("scalesim_")}
        inside = {name for name in ours if name.startswith("scalesim_adapters.vllm.plugin")}
        shared = {"scalesim_adapters" + part for part in ("", ".vllm", ".dues", ".lorafiles")}
        assert ours - inside <= shared, ours
    """)


def test_an_engine_that_is_not_known_from_inside_stays_stock_and_says_so() -> None:
    """Each change is made in a copy of a process that has vLLM imported, which takes long."""
    said = in_vllm("""
        import os
        import vllm
        from fastapi import FastAPI
        from vllm.v1.engine.core import EngineCore
        from scalesim_adapters.vllm.plugin import endpoints, engine

        def change_the_version():
            vllm.__version__ = "0.99.0"

        def take_something_away():
            del EngineCore.is_sleeping

        def change_a_signature():
            EngineCore.collective_rpc = lambda self: None

        for change in (change_the_version, take_something_away, change_a_signature):
            if child := os.fork():
                assert os.waitpid(child, 0)[1] == 0, change.__name__
                continue
            change()
            engine.register()
            app = FastAPI()
            endpoints.Endpoints().attach_router(app)
            assert not hasattr(EngineCore, "scalesim")
            assert not [route for route in app.routes if "scalesim" in getattr(route, "path", "")]
            break
    """)
    reasons = [line.partition("stays stock: ")[2] for line in said.splitlines() if "stays stock" in line]
    named = (
        "vLLM 0.99.0 is not known",
        "another EngineCore.is_sleeping",
        "another EngineCore.collective_rpc",
    )
    assert len(reasons) == len(named)
    assert all(name in reason for name, reason in zip(named, reasons, strict=True))


def test_a_known_one_gets_it_only_where_it_was_named() -> None:
    in_vllm("""
        import os
        from vllm.v1.engine.core import EngineCore
        from scalesim_adapters.vllm.plugin import engine
        for named, added in ((None, False), ("other", False), ("other,scalesim", True)):
            os.environ.pop("VLLM_PLUGINS", None)
            if named is not None:
                os.environ["VLLM_PLUGINS"] = named
            engine.register()
            assert hasattr(EngineCore, "scalesim") == added, named
    """)
