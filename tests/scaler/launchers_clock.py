"""A clock that moves when it is told to."""

from datetime import UTC, datetime, timedelta


class HandClock:
    """Starts at a date of no meaning."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)
