"""Which vLLM this plug-in knows from inside. On any other it does nothing."""

from __future__ import annotations

import inspect

KNOWN = frozenset({"0.32.0"})


def unknown(version: str) -> str | None:
    """Return why this version isn't looked into at all, None where it is a known one."""
    if version.partition("+")[0] in KNOWN:
        return None
    return f"vLLM {version} is not known from inside; known: {', '.join(sorted(KNOWN))}"


def refusal(version: str, internals: dict[type, dict[str, tuple[str, ...]]]) -> str | None:
    """Return why the engine had better be left as it is, None where it is as we know it.

    `internals` gives the methods that are relied on, by class, each with the names of its first parameters.
    """
    why = unknown(version)
    if why is not None:
        return why
    for owner, methods in internals.items():
        for name, parameters in methods.items():
            method = getattr(owner, name, None)
            if method is None or tuple(inspect.signature(method).parameters)[: len(parameters)] != parameters:
                return f"vLLM {version} has another {owner.__name__}.{name} than the one that is known"
    return None
