"""Log lines as JSON on stderr: one object a line, with what happened and to which job. Never a prompt or an output."""

import logging
import sys

import structlog


def configure_logs(level: str = "info") -> None:
    """Send structlog's events to stderr as JSON; `level` is one of debug, info, warning, error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
