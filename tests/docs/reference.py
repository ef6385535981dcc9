"""`python -m tests.docs.reference` writes the pages that follow from code; a test says where they are behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.docs import commands_page, config_page, rest_page, tables

PAGES: dict[Path, Callable[[], str]] = {
    config_page.PAGE: config_page.page,
    rest_page.PAGE: rest_page.page,
    commands_page.PAGE: commands_page.page,
    tables.TROUBLESHOOTING: tables.alerts,
    tables.COMPATIBILITY: tables.not_run,
}


def main() -> None:
    """Write all of them."""
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
