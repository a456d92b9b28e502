"""The log lines about jobs, kept for a moment until they are sent to where the jobs' owners can read them.

Sits among structlog's processors and changes nothing there. What does not fit is dropped and counted: no line is worth
memory without end, or a job that waits. Lines without `job_id`, `tenant` and `model` are not about a job, so that
whoever sends these may log without end, too.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, MutableMapping
from datetime import datetime
from typing import Any

import msgspec

from headrace_contracts.job import Scalar
from headrace_contracts.log_line import LogLevel, LogLine

# Some seconds of a busy worker. More is memory for lines of jobs that have long ended.
MOST_LINES = 4096
LONGEST_TEXT = 500

_LEVELS = {str(level): level for level in LogLevel}
# What a message is addressed by, and what has a field of its own.
_NOT_FIELDS = frozenset(
    ("job_id", "tenant", "model", "timestamp", "level", "event", "worker", "attempt", "trace_id", "component")
)


class JobLine(msgspec.Struct, frozen=True):
    """A line and whose it is."""

    tenant: str
    model: str
    job_id: str
    line: LogLine


class JobLines:
    """Takes lines from any thread; one task takes them out."""

    def __init__(self, most_lines: int = MOST_LINES) -> None:
        self._most_lines = most_lines
        self._lines: deque[JobLine] = deque()
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._dropped = 0
        self._closed = False

    def __call__(self, _logger: object, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """As a processor of structlog, behind those that add level and time."""
        level = _LEVELS.get(entry["level"])
        if level is not None and "job_id" in entry and "tenant" in entry and "model" in entry:
            self._take(entry, level)
        return entry

    def take_dropped(self) -> int:
        """How many lines were dropped since this was asked last."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def drop(self, count: int) -> None:
        """Count lines as dropped that could not be sent."""
        self._dropped += count

    def close(self) -> None:
        """Take no more lines until `open`, and forget those there are: nobody will send them."""
        self._closed = True
        self._lines.clear()

    def open(self) -> None:
        """Take lines: as it is at first."""
        self._closed = False

    async def wait(self) -> None:
        """Until there are lines."""
        there = asyncio.Event()
        self._waiting = asyncio.get_running_loop(), there
        if not self._lines:
            await there.wait()
        self._waiting = None

    def take(self) -> list[JobLine]:
        """All lines there are, in order; they are not kept any more."""
        return [self._lines.popleft() for _ in range(len(self._lines))]

    def _take(self, entry: Mapping[str, Any], level: LogLevel) -> None:
        if self._closed:
            return
        if len(self._lines) >= self._most_lines:
            self._dropped += 1
            return
        line = LogLine(
            datetime.fromisoformat(entry["timestamp"]),
            level,
            str(entry["event"]),
            entry.get("worker", ""),
            entry.get("attempt", 0),
            entry.get("trace_id", ""),
            {key: _scalar(value) for key, value in entry.items() if key not in _NOT_FIELDS},
        )
        self._lines.append(JobLine(entry["tenant"], entry["model"], entry["job_id"], line))
        waiting = self._waiting
        if waiting is not None and len(self._lines) == 1 and not waiting[0].is_closed():
            waiting[0].call_soon_threadsafe(waiting[1].set)


def _scalar(value: object) -> Scalar:
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)[:LONGEST_TEXT]
