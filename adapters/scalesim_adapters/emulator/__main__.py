"""`python -m scalesim_adapters.emulator`: serve an emulated engine until interrupted."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
from dataclasses import fields, replace

from scalesim_adapters.emulator.config import CostModel, EmulatorConfig
from scalesim_adapters.emulator.server import EmulatorServer

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> None:
    """Serve with flags named as `EmulatorConfig`'s fields; `--cost-...` flags change the cost model."""
    parser = argparse.ArgumentParser(prog="python -m scalesim_adapters.emulator", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    defaults = EmulatorConfig(time_scale=1.0)
    for field in fields(EmulatorConfig):
        value = getattr(defaults, field.name)
        flag = "--" + field.name.replace("_", "-")
        if isinstance(value, bool):
            parser.add_argument(flag, action="store_true")
        elif not isinstance(value, CostModel):
            parser.add_argument(flag, type=str if value is None else type(value), default=value)
    for field in fields(CostModel):
        flag = "--cost-" + field.name.replace("_", "-")
        parser.add_argument(flag, type=float, default=getattr(defaults.cost, field.name))
    given = vars(parser.parse_args(arguments))
    port = given.pop("port")
    cost = CostModel(**{field.name: given.pop(f"cost_{field.name}") for field in fields(CostModel)})
    server = EmulatorServer(replace(EmulatorConfig(**given), cost=cost), port=port)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            server.serve(lambda: log.info("an emulated engine, no real one, listens at %s", server.url))
        )


if __name__ == "__main__":
    main()
