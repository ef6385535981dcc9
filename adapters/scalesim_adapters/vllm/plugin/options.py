"""What the plug-in is told, by vLLM's `--additional-config '{"scalesim": {"dues": "tcp://127.0.0.1:5601"}}'`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from scalesim_adapters.dues import SILENCE_SECONDS, DueKeys, DueListener

KEY = "scalesim"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`dues` is where the daemon broadcasts dues, its `broadcast.bind`; after `silence_seconds` without a word the
    engine follows its own policy. Where the daemon asks for keys (`broadcast.curve`), `keys` is the file of the
    engine's own, `daemon_key` that of the daemon's public one."""

    dues: str
    silence_seconds: Annotated[float, msgspec.Meta(gt=0)] = SILENCE_SECONDS
    keys: str | None = None
    daemon_key: str | None = None

    def listener(self) -> DueListener:
        """Listen. Raises `ValueError` for keys or an endpoint that can't be used."""
        return DueListener(self.dues, self.silence_seconds, DueKeys.load(self.keys, self.daemon_key))


def read_options(additional_config: Any) -> Options:
    """Return the options in vLLM's additional configuration. Raises `ValueError`, naming what is wrong."""
    given = additional_config.get(KEY) if isinstance(additional_config, dict) else None
    example = '--additional-config \'{"scalesim": {"dues": "tcp://127.0.0.1:5601"}}\''
    if given is None:
        raise ValueError(f"the plug-in isn't told where dues are broadcast: start vLLM with {example}")
    try:
        return msgspec.convert(given, Options)
    except msgspec.ValidationError as error:
        raise ValueError(f"--additional-config: {KEY}: {error}; for example {example}") from error
