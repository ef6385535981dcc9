"""The host tiers' segments: made by the daemon before an engine needs them. Nothing here removes one."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from scalesim_adapters.hostbuf.segment import InUse, SegmentError, provide
from scalesim_daemon.settings import ConfigError, EngineSettings

log = structlog.get_logger(__name__)


def provide_segments(engines: Iterable[EngineSettings]) -> None:
    """Make the segments of this host's engines that aren't there, fully allocated. One that an engine holds is left
    alone, and so is the content of one that has its size. Raises `ConfigError` where one can't be had, with the
    remedy."""
    for engine in engines:
        tier = engine.host_tier
        if tier is None or engine.standby:
            continue
        try:
            provide(tier.segment, tier.bytes)
        except InUse:
            log.warning(
                "host tier in use with another size: it stays so until engine and daemon are restarted",
                engine=engine.name,
                segment=str(tier.segment),
            )
        except SegmentError as error:
            raise ConfigError(f"engines: {engine.name}: host_tier: {error.strerror}") from error
        except OSError as error:
            why = f"{tier.segment} can't be made: {error.strerror or error}: name another file"
            raise ConfigError(f"engines: {engine.name}: host_tier: {why}") from error
