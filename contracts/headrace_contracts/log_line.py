"""What workers log about a job: messages on `logs.<tenant>.<model>.<job_id>`, for whoever cannot read their stderr.

Best effort, as events are: a line may be missing, and no line holds a prompt or an output.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from headrace_contracts.job import Scalar


class LogLevel(StrEnum):
    """How bad it is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line."""

    at: datetime
    level: LogLevel
    event: str
    """What happened, in a few words that stay the same from job to job, as in `job started`."""
    worker: str = ""
    attempt: int = 0
    """From 1; 0: not known yet."""
    trace_id: str = ""
    """Of the trace that the job is part of, if it is."""
    fields: dict[str, Scalar] = {}
    """What else the line says."""


class LogLines(msgspec.Struct, frozen=True):
    """The body of a message: lines of one job that one worker logged soon after each other, in order."""

    lines: tuple[LogLine, ...]
