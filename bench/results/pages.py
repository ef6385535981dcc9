"""Parts of pages that a command writes anew: what lies between two comments. Pure."""

from __future__ import annotations

Marks = tuple[str, str]
"""The comments that stand before and after a part."""


def with_part(page: str, marks: Marks, text: str) -> str:
    """Return the page with a part written anew. Raises `ValueError` where it lacks the marks."""
    begin, end = marks
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"the page has no part between {begin} and {end}")
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"
