"""Every command on the pages is run by a test, or says why none runs it; what else stands in blocks is well formed."""

from __future__ import annotations

import ast
import json

import pytest
import yaml

from tests.client.wire_page import PAGE as WIRE
from tests.docs.blocks import KEEPS_RUNNING, ROOT, SHELL, Block, all_blocks, blocks, blocks_in
from tests.docs.scenes import SCENES

BLOCKS = all_blocks()
COMMANDS = [block for block in BLOCKS if block.language in SHELL]
by_place = pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)


def test_every_command_is_run_or_says_why_not() -> None:
    assert COMMANDS
    for block in COMMANDS:
        what = (
            f"run by {SCENES.get(block.scene or '')}" if block.kind == "run" else f"not run: {block.reason}"
        )
        print(f"{block.where}: {what}")
    assert [block.where for block in COMMANDS if block.kind not in ("run", "not run")] == []


def test_every_scene_has_its_test() -> None:
    assert {block.scene for block in BLOCKS if block.scene is not None} == set(SCENES)
    assert [test for test in SCENES.values() if not (ROOT / test).exists()] == []


@by_place
def test_a_block_says_its_language_and_how_it_is_run(block: Block) -> None:
    assert block.language, block.where
    if block.kind == "run":
        assert block.language in SHELL
        assert block.how in ("", KEEPS_RUNNING) or block.until
    if block.kind == "file":
        assert block.how and block.language not in SHELL


@by_place
def test_a_block_is_well_formed(block: Block) -> None:
    match block.language:
        case "python":
            ast.parse(block.text)
        case "yaml":
            assert yaml.safe_load(block.text)
        case "json":
            json.loads(block.text)


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.scene == "ci"], ids=lambda block: block.where)
def test_what_ci_runs_it_runs(block: Block) -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    for command in (line.partition("#")[0].strip() for line in block.text.splitlines()):
        assert any(line.startswith(command) for line in lines), command


def test_the_wires_commands_are_those_of_its_own_test() -> None:
    assert [block.scene for block in blocks(WIRE) if block.language in SHELL] == ["curl", "curl"]


def test_marks_are_read() -> None:
    first, second, third = blocks_in(
        "<!-- run: a, until: x, y -->\n\n```sh\nb\n```\n\n```sh\nc\n```\n<!-- not run: d -->\n```text\n\n```\n",
        "p.md",
    )
    assert (first.scene, first.until, first.text, first.where) == ("a", "x, y", "b", "p.md:3")
    assert (second.kind, second.scene, second.reason) == (None, None, None)
    assert (third.kind, third.reason, third.language) == ("not run", "d", "text")


def test_a_block_that_does_not_end_is_found() -> None:
    with pytest.raises(ValueError, match=r"p\.md:1"):
        list(blocks_in("```sh\nb\n", "p.md"))
