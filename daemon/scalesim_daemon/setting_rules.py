"""What settings have to do with each other, across sections."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalesim_daemon.settings import Settings


def check_fit(settings: Settings) -> None:
    """Raise `ValueError` for what doesn't go together, with the remedy."""
    for check in (_engines_differ, _fleet_shares, _standby_in_a_fleet, _gateway_fits, _segments_differ):
        check(settings)


def _engines_differ(settings: Settings) -> None:
    names = Counter(engine.name for engine in settings.engines)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"engines: {', '.join(twice)} is named twice: every engine needs its own name")


def _fleet_shares(settings: Settings) -> None:
    if settings.fleet.enabled and not (settings.redis.enabled and settings.redis.url):
        raise ValueError(
            "fleet: its daemons agree through a Redis that all of them reach, and an embedded Valkey is this "
            "daemon's alone: set redis.url (and leave redis.enabled true), or fleet.enabled: false"
        )


def _standby_in_a_fleet(settings: Settings) -> None:
    alone = [engine.name for engine in settings.engines if engine.standby and not settings.fleet.enabled]
    if alone:
        raise ValueError(
            f"engines: {', '.join(alone)} is another daemon's (standby), and there is none: set fleet.enabled"
        )


def _gateway_fits(settings: Settings) -> None:
    if not settings.gateway.enabled:
        return
    if settings.gateway.port == settings.api.port != 0:
        raise ValueError(
            f"gateway.port: {settings.api.port} is the API's, and the two never share one: by default 8701 and 8700"
        )
    if not settings.engines:
        raise ValueError("gateway: there is no engine to pass requests on to: name one, --engine vllm=URL")


def _segments_differ(settings: Settings) -> None:
    segments = Counter(engine.host_tier.segment for engine in settings.engines if engine.host_tier)
    for segment, count in segments.items():
        if count > 1:
            raise ValueError(f"engines: {segment} is the host tier of {count}: every engine needs its own")
