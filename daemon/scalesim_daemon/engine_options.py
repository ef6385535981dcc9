"""How commands that ask an engine themselves are told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EngineUrl = Annotated[str, typer.Argument(help="Where the engine listens, such as http://127.0.0.1:8000.")]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, resolve_path=True, help="A file with the API key that the engine wants."
    ),
]
