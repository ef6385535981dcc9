"""How the daemon logs."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from scalesim_daemon.settings import LogSettings


def configure_logging(settings: LogSettings) -> None:
    """Log one structured line per change to standard error, as text or JSON."""
    renderer: Any = (
        structlog.processors.JSONRenderer() if settings.format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
