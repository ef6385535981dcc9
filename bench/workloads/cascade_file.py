"""Read who follows whom from a table of accounts as OASIS has them, made from cascades that were recorded.

CSV with a line per account: its number in the first column, `name`, `user_char` (what it says of itself),
`following_agentid_list` (numbers) and `previous_tweets` (texts); of the cascade itself it keeps who wrote what spread,
and of whom each account had it, but no times. Format: https://github.com/camel-ai/oasis
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

COLUMNS = {"", "name", "user_char", "following_agentid_list", "previous_tweets"}


@dataclass(frozen=True, slots=True)
class Account:
    """One account: what it says of itself, whom it follows, by name, and what it wrote."""

    profile: str
    follows: tuple[str, ...]
    posts: tuple[str, ...]


def read_accounts(path: Path) -> dict[str, Account]:
    """Read a table; return its accounts by name. Raises `ValueError` where the file is none."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        if not set(rows.fieldnames or ()) >= COLUMNS:
            raise ValueError(f"{path}: this is no table of accounts: it lacks columns")
        table = list(rows)
    names = {int(row[""]): row["name"] for row in table}
    return {row["name"]: _account(row, names) for row in table}


def _account(row: Mapping[str, str], names: Mapping[int, str]) -> Account:
    try:
        follows = tuple(names[number] for number in ast.literal_eval(row["following_agentid_list"]))
        posts = tuple(ast.literal_eval(row["previous_tweets"]))
    except (KeyError, SyntaxError, TypeError, ValueError) as error:
        raise ValueError(
            f"{row['name']} follows nobody of the table, or its lists are none: {error}"
        ) from None
    return Account(row["user_char"], follows, posts)
