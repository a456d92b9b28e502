"""What an engine really ran, written by the engine itself: one line of JSON for each moment of each run.

Evidence for a checker that does not believe the queue. Several engine processes append to one file: each line is one
write to a file opened for appending, which the kernel does not tear apart, and is on the disk before the engine goes
on, so that a crash right after it loses nothing.
"""

import os
from enum import StrEnum
from pathlib import Path

import msgspec

from headrace_contracts.clock import Clock


class Moment(StrEnum):
    """What happened to a run."""

    START = "start"
    FINISH = "finish"
    """It succeeded; the supervisor is told next."""
    END = "end"
    """It ends otherwise: `how` says in which way. Written before, where nothing can be written after."""


class Entry(msgspec.Struct, frozen=True):
    """One line."""

    moment: Moment
    run_id: str
    """`<stream sequence>-<num_delivered>` of the job's delivery."""
    attempt: int
    pid: int
    """The engine process."""
    echo: str
    """Of the job's input."""
    how: str
    monotonic_s: float
    """One clock for all processes of a machine; not for two machines."""
    wall_s: float


class ExecutionJournal:
    """Appends to `path`; without one, to nothing."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._clock = clock
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, moment: Moment, run_id: str, attempt: int, echo: str, how: str) -> None:
        """Append a line; when it returns, the line is on the disk."""
        if self._file is None:
            return
        now = self._clock.now().timestamp()
        entry = Entry(moment, run_id, attempt, os.getpid(), echo, how, self._clock.monotonic(), now)
        os.write(self._file, msgspec.json.encode(entry) + b"\n")
        os.fsync(self._file)
