"""Whose names an object still has, in whatever it refers to."""

from __future__ import annotations

import gc
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

ELSEWHERE = (type, ModuleType, FunctionType, BuiltinFunctionType, CodeType)
"""What refers to all the rest of the process."""


def names_kept(root: object, mark: str) -> set[str]:
    """Return all strings that have `mark` in them and can be reached from `root`."""
    found, seen, left = set[str](), {id(root)}, [root]
    while left:
        for one in gc.get_referents(left.pop()):
            if isinstance(one, str):
                found |= {one} if mark in one else set()
            elif id(one) not in seen and not isinstance(one, ELSEWHERE):
                seen.add(id(one))
                left.append(one)
    return found
