"""Structured logs on stderr: an event name and fields, JSON lines for machines, colours for a terminal. Never secrets, never bodies."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(level: int) -> None:
    """Once a process."""
    human = sys.stderr.isatty()
    logging.basicConfig(level=max(level, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if human else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
