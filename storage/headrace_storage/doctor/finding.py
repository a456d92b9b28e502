"""What a check says: one row of `headrace doctor`."""

from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How bad a finding is; only FAIL makes `headrace doctor` fail."""

    OK = "ok"
    WARNING = "warning"
    FAIL = "FAIL"
    UNKNOWN = "unknown"
    """It could not be seen from here."""


class Finding(msgspec.Struct, frozen=True):
    """One row."""

    check: str
    """What was looked at: stable words for programs, as in `stream JOBS`."""
    level: Level
    found: str
    advice: str = ""
    """What to do; empty where nothing needs doing."""
