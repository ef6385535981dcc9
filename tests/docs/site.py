"""`python -m tests.docs.site FOLDER`: fails where a page of the built site loads anything from elsewhere."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class Loads(HTMLParser):
    """Collects what a page's elements load from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        address = dict(attrs).get(LOADED.get(tag, ""))
        if address is not None and address.startswith(("http:", "https:", "//")):
            self.elsewhere.append(address)


def elsewhere(html: str) -> list[str]:
    """Return what a page loads from other hosts."""
    page = Loads()
    page.feed(html)
    return page.elsewhere


def main() -> None:
    """Look at all pages."""
    pages = sorted(Path(sys.argv[1]).rglob("*.html"))
    found = [
        f"{page}: {address}" for page in pages for address in elsewhere(page.read_text(encoding="utf-8"))
    ]
    if found or not pages:
        raise SystemExit("\n".join(found) or f"{sys.argv[1]} has no pages")
    print(
        f"{len(pages)} pages in {sys.argv[1]}, which load nothing from elsewhere: {pages[0].parent / 'index.html'}"
    )


if __name__ == "__main__":
    main()
