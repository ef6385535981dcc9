"""The workload `cascade`: what a recorded cascade's author writes spreads over its graph again and again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from bench.workloads.base import MAX_ACTIVE_SHARE
from bench.workloads.cascade_file import Account, read_accounts
from bench.workloads.diffusion import Diffusion, Item


class Cascade(Diffusion):
    """`count` steps on the accounts of a table. Who wrote what spread writes again when its last post is about to have
    been read by all. On this graph everybody passes on: an account follows those of whom it had the post.

    Raises `ValueError` where the file is no such table.
    """

    simulation = "cascade"

    def __init__(self, path: Path, count: int = 12, active: float = MAX_ACTIVE_SHARE) -> None:
        self._accounts = read_accounts(path)
        followers: dict[str, list[str]] = {name: [] for name in self._accounts}
        for name, account in self._accounts.items():
            for followed in account.follows:
                followers[followed].append(name)
        authors = [name for name, account in self._accounts.items() if account.posts and followers[name]]
        super().__init__(followers, 1, count, active=active, passing=1.0, sources=authors)
        self.personas = {name: _persona(name, self._accounts) for name in self._accounts}

    def memory(self, name: str, now: int, items: Sequence[Item]) -> str:
        """Return the part of the feed that an account reads, and the question put to it."""
        new = " ".join(f"{item.source} wrote: {self._accounts[item.source].posts[0]}." for item in items)
        return (
            f"{now}. {name} opens its feed, at step {now} of the day. {new or 'There is nothing new in it.'} "
            f"It has been a while since {name} was here last, and {len(items)} of the posts it had not seen. "
            f"Does {name} pass any of this on to those who follow it, does it answer, write something of its own, "
            "or go on without a word? Say what it does, in one sentence, and in another one why."
        )


def _persona(name: str, accounts: dict[str, Account]) -> str:
    """Return who the account is, and as its memory the other accounts, in the order in which it came to know them."""
    account = accounts[name]
    others = [other for other in accounts if other != name]
    Random(name).shuffle(others)
    return "\n".join(
        [
            f"{name} has an account on a network. {name} says of itself: {account.profile or 'nothing'}",
            f"{name} follows {', '.join(account.follows) or 'nobody'}.",
            *(f"{name} wrote: {post}" for post in account.posts),
            f"Accounts that {name} has come across:",
            *(f"{other} says of itself: {accounts[other].profile or 'nothing'}" for other in others),
        ]
    )
