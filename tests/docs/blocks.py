"""The fenced blocks of the documentation, and what their marks say: which test runs them, or why none does.

A mark is a comment on a line of its own before the block, and shows on no page:

- `run: SCENE`: the test of that scene runs the block, after those before it. `run: SCENE, until: TEXT` is repeated
  until it succeeds and its output holds the text. `run: SCENE, keeps running` is left running, as in a terminal of its
  own; with `until: TEXT` behind that, one goes on when it has said so.
- `file: SCENE, NAME`: the reader saves it under this name.
- `not run: REASON`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELL = frozenset({"sh", "bash", "console"})
FENCE = re.compile(r"(`{3,})(\w*)\s*$")
KEEPS_RUNNING = "keeps running"
MARK = re.compile(r"<!-- (run|file|not run): (.+?) -->$")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `scene` is None where nothing runs or saves it; `how` is what follows it in the mark. `reason`
    says why no test runs it."""

    page: str
    line: int
    language: str
    text: str
    kind: str | None = None
    scene: str | None = None
    how: str = ""
    reason: str | None = None

    @property
    def where(self) -> str:
        """Page and line, as editors take them."""
        return f"{self.page}:{self.line}"

    @property
    def keeps_running(self) -> bool:
        """Whether it is left running."""
        return self.how.startswith(KEEPS_RUNNING)

    @property
    def until(self) -> str | None:
        """What its output comes to hold, None where nothing is waited for."""
        _, until, text = self.how.removeprefix(KEEPS_RUNNING).partition("until: ")
        return text if until else None


def pages() -> list[Path]:
    """Return the pages in the order in which they are read: the site's, and README."""
    site = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    return [*(ROOT / "docs" / page for page in site), ROOT / "README.md"]


def blocks(page: Path) -> Iterator[Block]:
    """Yield a page's blocks in order. Raises `ValueError` where one doesn't end."""
    return blocks_in(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT)))


def blocks_in(text: str, name: str) -> Iterator[Block]:
    """Yield the blocks of a page of this name, in order. Raises `ValueError` where one doesn't end."""
    mark, number = None, 0
    lines = text.splitlines()
    while number < len(lines):
        line, number = lines[number], number + 1
        opening = FENCE.match(line)
        if opening is None:
            mark = MARK.match(line) or (mark if not line else None)
            continue
        first = number
        try:
            number = lines.index(opening[1], first) + 1
        except ValueError:
            raise ValueError(f"{name}:{first}: the block doesn't end") from None
        yield _block(name, first, opening[2], "\n".join(lines[first : number - 1]), mark)
        mark = None


def all_blocks() -> list[Block]:
    """Return the blocks of all pages."""
    return [block for page in pages() for block in blocks(page)]


def of_scene(scene: str) -> list[Block]:
    """Return what a scene is made of, page by page."""
    return [block for block in all_blocks() if block.scene == scene]


def _block(page: str, line: int, language: str, text: str, mark: re.Match[str] | None) -> Block:
    if mark is None:
        return Block(page, line, language, text)
    if mark[1] == "not run":
        return Block(page, line, language, text, mark[1], reason=mark[2])
    scene, _, how = mark[2].partition(", ")
    return Block(page, line, language, text, mark[1], scene, how)
