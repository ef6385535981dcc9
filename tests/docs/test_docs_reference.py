"""The pages that follow from code are up to date, and what the others name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.rig import llamacpp, sglang, vllm
from scalesim_adapters.vllm.plugin import versions
from tests.docs.blocks import ROOT, pages
from tests.docs.commands_page import commands
from tests.docs.config_page import EXAMPLE, entries
from tests.docs.reference import PAGES
from tests.docs.site import elsewhere

DOCS = ROOT / "docs"
COMPATIBILITY = (DOCS / "compatibility.md").read_text()
OWN_FOLDERS = "adapters|bench|client|configs|daemon|docs|estimators|examples|requirements|tests"
# Whom pages send their readers to; nobody looks there during tests.
ELSEWHERE = frozenset[str]()
HERE = frozenset({"127.0.0.1", "localhost"})


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path](), "run `make reference`"


def test_every_setting_has_its_meaning() -> None:
    known = entries(EXAMPLE.read_text())
    assert all(entry.said for section in known.values() for entry in section)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(rf"`((?:{OWN_FOLDERS})/[\w./-]+)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_commands_that_are_named_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {typed.split()[1] for typed in commands()}
    named = re.findall(r"(?m)(?:^|`|&& )scalesim(?:d|ctl) ([a-z]+)", text)
    assert set(named) <= known


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_lead_nowhere_that_is_not_listed(page: Path) -> None:
    hosts = set(re.findall(r"\]\(https?://([^/:)]+)", page.read_text(encoding="utf-8")))
    assert hosts - HERE <= ELSEWHERE


@pytest.mark.parametrize(
    ("engine", "version"),
    [("vLLM", vllm.VERSION), ("SGLang", sglang.VERSION), ("llama.cpp", llamacpp.VERSION)],
)
def test_engines_are_those_that_are_tested(engine: str, version: str) -> None:
    assert f"| {engine} | {version} |" in COMPATIBILITY
    page = {"vLLM": "vllm.md", "SGLang": "sglang.md"}.get(engine)
    if page is not None:
        assert set(re.findall(rf"{engine} (\d[\d.]+\d)", (DOCS / page).read_text())) == {version}


def test_plugins_know_those_versions() -> None:
    inside = (ROOT / "adapters" / "scalesim_adapters" / "sglang" / "plugin" / "__init__.py").read_text()
    assert set(versions.KNOWN) == {vllm.VERSION}
    assert f'KNOWN_VERSIONS = ("{sglang.VERSION}",)' in inside


@pytest.mark.parametrize(
    ("library", "package", "file"),
    [
        ("Mesa", "mesa", "dev.lock"),
        ("Mesa-LLM", "mesa-llm", "integration-mesa-llm.lock"),
        ("Concordia", "gdm-concordia", "integration-concordia.lock"),
        ("OASIS", "camel-oasis", "integration-oasis.lock"),
        ("AgentSociety", "agentsociety", "integration-agentsociety.lock"),
    ],
)
def test_libraries_are_those_that_are_tested(library: str, package: str, file: str) -> None:
    locked = re.search(rf"(?m)^{package}==(\S+)", (ROOT / "requirements" / file).read_text())
    assert locked is not None and f"| {library} | {locked[1]} |" in COMPATIBILITY


def test_flags_of_an_sglang_are_those_that_tests_start_it_with(tmp_path: Path) -> None:
    page = (DOCS / "sglang.md").read_text()
    first = page.partition("```sh\n")[2].partition("```")[0]
    started = {*sglang.sidecar_flags(tmp_path, 1024), "--model-path", "--port"}
    assert set(re.findall(r"--[\w-]+", first)) <= started


def test_flags_of_a_vllm_are_those_that_tests_start_it_with(tmp_path: Path) -> None:
    page = (DOCS / "vllm.md").read_text()
    (first,) = re.findall(r'(?m)^vllm serve "\$MODEL"(?:.|\n)*?```', page)
    assert set(re.findall(r"--[\w-]+", first)) <= {*vllm.sidecar_flags(tmp_path, 1024), "--port"}


def test_what_is_loaded_from_elsewhere_is_found() -> None:
    page = '<link href="a.css"><script src="https://cdn.example/x.js"></script><a href="https://example"></a>'
    assert elsewhere(page) == ["https://cdn.example/x.js"]
