"""What SGLang loads into its own processes through its extension points. It changes no file of the engine, and imports
only the standard library, SGLang, and what SGLang depends on.

Installed beside SGLang, it is found by the entry point group `sglang.srt.plugins`, and does nothing unless the
environment says where dues are broadcast: `SCALESIM_DUES=tcp://127.0.0.1:5601`, and for a broadcast with keys
`SCALESIM_DUES_KEYS` (the file of its own) and `SCALESIM_DUES_DAEMON_KEY` (of the daemon's public one). Then

- the device evicts by due, with `--enable-session-radix-cache`; after `SCALESIM_SILENCE_SECONDS` (2) without a word
  from the daemon it evicts as it would alone (`eviction`);
- it tells which LoRAs have a slot, and whether its model sleeps (`hooks`);
- its model is put to sleep and woken without the calls that would end the server (`sleep`);
- its host tier may lie on a storage that outlives a restart (`storage`), where its flags name that.
"""

from __future__ import annotations

import logging
import os

from scalesim_adapters.dues import SILENCE_SECONDS, DueKeys, DueListener

ENDPOINT = "SCALESIM_DUES"
SILENCE = "SCALESIM_SILENCE_SECONDS"
KEYS = "SCALESIM_DUES_KEYS"
DAEMON_KEY = "SCALESIM_DUES_DAEMON_KEY"
KNOWN_VERSIONS = ("0.5.23",)

log = logging.getLogger("sglang.scalesim")


def register() -> None:
    """Hook into the server, where the environment asks for it and the server's version is known."""
    endpoint = os.environ.get(ENDPOINT)
    if not endpoint:
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType
    from sglang.version import __version__

    if __version__ not in KNOWN_VERSIONS:
        log.warning("SGLang %s is not known from inside: it stays as it is", __version__)
        return
    from scalesim_adapters.sglang.plugin.hooks import Hooks

    silence = float(os.environ.get(SILENCE, SILENCE_SECONDS))
    hooks = Hooks(endpoint, lambda: DueListener(endpoint, silence, read_keys()))
    for kind, called in ((HookType.AFTER, hooks.after()), (HookType.AROUND, hooks.around())):
        for target, hook in called.items():
            HookRegistry.register(target, hook, kind)


def read_keys() -> DueKeys | None:
    """Return the keys that the environment names, if any. Raises `ValueError` for what can't be used."""
    return DueKeys.load(os.environ.get(KEYS), os.environ.get(DAEMON_KEY))
