"""Parts of pages that follow from files: what alerts mean, and which commands on the pages no test runs."""

from __future__ import annotations

from pathlib import Path

import yaml

from bench.results.pages import with_part
from tests.docs.blocks import ROOT, SHELL, all_blocks

TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
COMPATIBILITY = ROOT / "docs" / "compatibility.md"
RULES = ROOT / "configs" / "alerts.yml"
MARKS = ("<!-- written by `make reference` -->", "<!-- end of what is written -->")


def alerts() -> str:
    """Return `docs/troubleshooting.md` with what each alert of `configs/alerts.yml` means, and what to do."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    rows = (
        (f"`{rule['alert']}` ({rule['labels']['severity']})", notes["meaning"], notes["remedy"])
        for rule in rules
        for notes in [rule["annotations"]]
    )
    return _renewed(TROUBLESHOOTING, _table(("alert", "what it means", "what to do"), *rows))


def not_run() -> str:
    """Return `docs/compatibility.md` with the commands that no test runs, and why."""
    commands = [block for block in all_blocks() if block.language in SHELL]
    left = [block for block in commands if block.reason is not None]
    rows = ((f"`{one.page}`", f"`{_first(one.text)}`", one.reason or "") for one in left)
    said = f"Of {len(commands)} blocks of commands tests run {len(commands) - len(left)}, as they stand. The others:"
    return _renewed(
        COMPATIBILITY, f"{said}\n\n{_table(('page', 'first command', 'why no test runs it'), *rows)}"
    )


def _first(text: str) -> str:
    return text.splitlines()[0].partition("  #")[0].rstrip(" \\")


def _renewed(page: Path, text: str) -> str:
    return with_part(page.read_text(encoding="utf-8"), MARKS, text)


def _table(head: tuple[str, ...], *rows: tuple[str, ...]) -> str:
    lines = (" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in (head, *rows))
    first, *others = (f"| {line} |" for line in lines)
    return "\n".join([first, "|---" * len(head) + "|", *others])
