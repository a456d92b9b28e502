"""Log lines as JSON on stderr: one object a line, with what happened and to which job. Never a prompt or an output."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import msgspec
import structlog

from headrace_telemetry.job_lines import JobLines

# A busy worker writes a thousand lines a second: a fifth of the time of the standard library's.
_encoder = msgspec.json.Encoder(enc_hook=repr)


def configure_logs(
    level: str = "info", file: TextIO | None = None, *, component: str = "", lines: JobLines | None = None
) -> None:
    """Send structlog's events as JSON to a file, else to stderr.

    Args:
        level: one of debug, info, warning, error; what is below is said nowhere.
        file: where to.
        component: what this process is, as in `worker`; each line says it.
        lines: also has the lines about jobs.
    """

    def add_component(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        entry["component"] = component
        return entry

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *([add_component] if component else []),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([lines] if lines is not None else []),
            structlog.processors.JSONRenderer(serializer=_as_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file or sys.stderr),
    )


def _as_json(entry: object, **_: object) -> str:
    return _encoder.encode(entry).decode()
