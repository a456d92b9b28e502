"""Log lines as JSON on stderr: one object a line, with what happened and to which job. Never a prompt or an output."""

import logging
import sys
from typing import TextIO

import structlog


def configure_logs(level: str = "info", file: TextIO | None = None) -> None:
    """Send structlog's events as JSON to a file, else to stderr; `level` is one of debug, info, warning, error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file or sys.stderr),
    )
