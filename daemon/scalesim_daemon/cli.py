"""`scalesimd`: run the daemon, or find out beforehand what it would do."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from scalesim_daemon.app import serve as serve_until_stopped
from scalesim_daemon.recording.command import send_again
from scalesim_daemon.setting_sources import load_settings, parse_engine
from scalesim_daemon.settings import ConfigError, RunMode
from scalesim_daemon.whatif import command

app = typer.Typer(
    help="Runs the ScaleSim sidecar.",
    no_args_is_help=True,
    add_completion=False,
    # What a function works with may be secret.
    pretty_exceptions_show_locals=False,
)
app.command()(command.simulate)
app.command()(command.calibrate)
app.command("replay")(send_again)


@app.callback()
def main() -> None:
    """Runs the ScaleSim sidecar."""


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="A YAML file; see configs/example.yaml.")] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="An engine as KIND=URL, for example vllm=http://127.0.0.1:8000.")
    ] = None,
    feed: Annotated[str | None, typer.Option(help="Where simulations connect.")] = None,
    api_port: Annotated[int | None, typer.Option(help="Port of the REST API; 0 takes a free one.")] = None,
    gateway: Annotated[
        bool | None,
        typer.Option("--gateway", help="Also serve an OpenAI-compatible gateway to the engines."),
    ] = None,
    gateway_port: Annotated[int | None, typer.Option(help="Port of the gateway; 0 takes a free one.")] = None,
    redis: Annotated[
        str | None, typer.Option(help="URL of a Redis or Valkey; without one, an embedded one.")
    ] = None,
    mode: Annotated[
        RunMode | None, typer.Option(help="active, paused, or observe: plan, and act on nothing.")
    ] = None,
) -> None:
    """Run the daemon beside the engines until it is told to stop."""
    overrides: dict[str, Any] = {
        "feed": {"bind": feed},
        "api": {"port": api_port},
        "gateway": {"enabled": gateway, "port": gateway_port},
        "redis": {"url": redis},
        "mode": mode,
    }
    _run(config, engine, overrides)


@app.command()
def record(
    out: Annotated[Path, typer.Option(help="The file; where it is there already, one beside it.")],
    content: Annotated[
        bool, typer.Option("--content", help="Prompts too. Without it their lengths are recorded alone.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="A YAML file; see configs/example.yaml.")] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="An engine as KIND=URL, for example vllm=http://127.0.0.1:8000.")
    ] = None,
) -> None:
    """Run the daemon as `serve` does, and write what it hears to a file for `replay`."""
    _run(config, engine, {"record": {"path": out, "content": content or None}})


def _run(config: Path | None, engine: list[str] | None, overrides: dict[str, Any]) -> None:
    try:
        overrides["engines"] = [parse_engine(text) for text in engine] if engine else None
        reread = partial(load_settings, config, overrides)
        asyncio.run(serve_until_stopped(reread(), reread))
    except ConfigError as error:
        typer.echo(f"scalesimd: {error}", err=True)
        raise typer.Exit(2) from None
