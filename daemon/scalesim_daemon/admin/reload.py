"""The configuration shown, and read again while the daemon runs: what can hold at once does, the rest is named.

What is refused changes nothing. Secrets are shown nowhere: neither tokens nor what is secret in a URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError

from scalesim_daemon.admin.access import Tokens, read_tokens
from scalesim_daemon.admin.models import Change, ConfigState, Reloaded
from scalesim_daemon.logs import configure_logging
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.setting_sources import refusal
from scalesim_daemon.setting_values import redacted
from scalesim_daemon.settings import ConfigError, Settings

AT_ONCE = (
    "api.viewer_token",
    "api.viewer_token_file",
    "api.publisher_token",
    "api.publisher_token_file",
    "api.admin_token",
    "api.admin_token_file",
    "planner.chunk_tokens",
    "planner.quiet_share",
    "models.budget_bytes",
    "log.level",
    "log.format",
)

log = structlog.get_logger(__name__)


class NotReadable(Exception):
    """The daemon was started with settings that stand nowhere: there is nothing to read again."""


def shown(value: Any) -> Any:
    """Return a setting as people may see it."""
    match value:
        case dict():
            return {key: shown(inner) for key, inner in value.items()}
        case list() | tuple():
            return [shown(inner) for inner in value]
        case str():
            return redacted(value)
    return value


def config(sidecar: Sidecar) -> ConfigState:
    """Return what holds now."""
    return ConfigState(settings=shown(sidecar.settings.model_dump(mode="json")))


def reload(sidecar: Sidecar) -> Reloaded:
    """Read the configuration again and let hold what can. Raises `ConfigError`, which shows no secret, and
    `NotReadable`; then nothing has changed. The loop stands still for it, some milliseconds, so that nothing comes in
    between."""
    if sidecar.reread is None:
        raise NotReadable("the daemon was not started from a configuration: there is nothing to read again")
    try:
        wanted = sidecar.reread()
        in_force = _in_force(sidecar.settings, wanted)
        tokens = read_tokens(in_force.api)
    except ConfigError as error:
        log.warning("configuration not taken: all stays as it was", error=str(error))
        raise
    before, after = dict(_flat(sidecar.settings)), dict(_flat(wanted))
    renewed = _renewed(sidecar.tokens, tokens)
    changed = [key for key in after if before[key] != after[key] or (key in renewed and after[key])]
    _apply(sidecar, in_force)
    if tokens != sidecar.tokens:
        # Streams end when tokens change, and only then.
        sidecar.tokens = tokens
    answer = Reloaded(
        now=[_change(key, before, after) for key in changed if key in AT_ONCE],
        after_restart=[_change(key, before, after) for key in changed if key not in AT_ONCE],
    )
    log.info(
        "configuration read again",
        now=[change.key for change in answer.now],
        after_restart=[change.key for change in answer.after_restart],
    )
    return answer


def _renewed(old: Tokens, new: Tokens) -> set[str]:
    """Return the keys of the files whose tokens are others than they were."""
    differing = {role for role, token in new.by_role.items() if old.by_role.get(role) != token}
    return {f"api.{role}_token_file" for role in differing}


def _in_force(old: Settings, wanted: Settings) -> Settings:
    """Return the old settings with what of the wanted ones can hold at once. Raises `ConfigError` where these don't go
    together, as tokens that go while the API is still reachable from outside."""
    merged, new = old.model_dump(), wanted.model_dump()
    for key in AT_ONCE:
        section, name = key.split(".")
        merged[section][name] = new[section][name]
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise refusal(error, "configuration refused while the daemon runs as it was started") from None


def _apply(sidecar: Sidecar, settings: Settings) -> None:
    sidecar.settings = settings
    configure_logging(settings.log)
    for driver in sidecar.drivers.values():
        driver.view.chunk_tokens = settings.planner.chunk_tokens
        driver.view.quiet.share = settings.planner.quiet_share
    sidecar.wake()


def _flat(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting by its key; lists are whole, and so are sections that may be null."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _change(key: str, before: dict[str, Any], after: dict[str, Any]) -> Change:
    return Change(key=key, before=_plain(before[key]), after=_plain(after[key]))


def _plain(value: Any) -> Any:
    """Return a setting's value in JSON."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, BaseModel):
        return shown(value.model_dump(mode="json"))
    return value if value is None or isinstance(value, bool | int | float) else shown(str(value))
