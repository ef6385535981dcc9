"""`docs/commands.md`: every command of `scalesimd` and `scalesimctl` with its arguments and options, from typer."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import typer

from scalesim_daemon import cli
from scalesim_daemon.ctl import app as ctl
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "commands.md"
HEAD = """\
# Commands

<!-- written by `make reference` from the commands themselves; not edited by hand -->

`scalesimd` runs the daemon, or finds out beforehand what it would do. `scalesimctl` asks and steers one that runs, and
looks at an engine before the daemon does. Both come with `scalesim-sidecar[daemon]`, and explain themselves with
`--help`.
"""
APPS: dict[str, Any] = {"scalesimd": cli.app, "scalesimctl": ctl.app}


def commands() -> dict[str, Any]:
    """Return typer's commands by what is typed: `scalesimd serve`."""
    return {
        typed: command
        for name, app in APPS.items()
        for typed, command in _below(name, typer.main.get_command(app))
    }


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for name in APPS:
        parts.append(f"## {name}\n")
        of_it = {typed: one for typed, one in commands().items() if typed.split()[0] == name}
        parts += ["\n".join(_command(typed, one)) + "\n" for typed, one in of_it.items()]
    return "\n".join(parts)


def _below(typed: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield typed, command
        return
    for name, one in inner.items():
        if not getattr(one, "hidden", False):
            yield from _below(f"{typed} {name}", one)


def _command(typed: str, command: Any) -> Iterator[str]:
    yield f"### {typed}\n"
    yield from (f"{' '.join(part.split())}\n" for part in (command.help or "").split("\n\n"))
    shown = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
    if shown:
        yield "| | if left out | meaning |\n|---|---|---|"
        yield from (_parameter(one) for one in shown)


def _parameter(one: Any) -> str:
    argument = one.param_type_name == "argument"
    name = (
        (getattr(one, "metavar", None) or one.name.upper())
        if argument
        else ", ".join([*one.opts, *one.secondary_opts])
    )
    more = " (several may be given)" if not argument and one.multiple else ""
    variable = one.envvar if isinstance(one.envvar, str) else None
    absent = "not allowed" if one.required else _default(one.default)
    if variable is not None:
        absent = f"`${variable}`" + ("" if absent == "-" else f", else {absent}")
    meaning = " ".join((one.help or "").split()).replace("|", "\\|")
    return f"| `{name}` | {absent} | {meaning}{more} |"


def _default(value: Any) -> str:
    if value is None or value is False or callable(value) or value in ((), [], ""):
        return "-"
    return f"`{value.value if isinstance(value, Enum) else value}`"
