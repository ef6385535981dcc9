"""What is installed: the Python packages, and none of the folders of other languages beside them."""

from __future__ import annotations

from pathlib import Path

from setuptools.config.pyprojecttoml import read_configuration

ROOT = Path(__file__).parents[2]


def test_only_our_packages_are_installed() -> None:
    packages = read_configuration(ROOT / "pyproject.toml", expand=True)["tool"]["setuptools"]["packages"]
    assert {name.partition(".")[0] for name in packages} == {
        "scalesim_client",
        "scalesim_estimators",
        "scalesim_adapters",
        "scalesim_daemon",
    }
