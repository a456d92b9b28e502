"""How fast jobs end, by the newest results. Pure.

Where more ended than were read, those that were read stand for the others.
"""

import math
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from headrace_contracts.result import Status
from headrace_storage.newest_results import MOST_AT_A_LOOK, End, Ends

# Jobs per second are told over this time. Shorter jumps with every job; longer is late.
RATE_OVER = timedelta(seconds=60)
# Latencies are told over this time, so that a model with a job a minute has some.
LATENCY_OVER = timedelta(minutes=10)
# Ends that are kept, of all models together.
MOST_KEPT = 20_000


class Speed(msgspec.Struct, frozen=True):
    """Of one model; None: not known."""

    jobs_s: float | None = None
    """Jobs that ended per second."""
    p50_s: float | None = None
    """From the broker had a job until it had the result, of those that succeeded."""
    p99_s: float | None = None


class Speeds:
    """Remembers the newest ends of jobs."""

    def __init__(self) -> None:
        self._ends: deque[tuple[End, float]] = deque(maxlen=MOST_KEPT)
        self._covered_since: datetime | None = None

    def take(self, looked: Ends, now: datetime) -> None:
        """Take one look's ends."""
        if self._covered_since is None:
            # A first look that came to its limit has not seen what ended before.
            full = len(looked.ends) >= MOST_AT_A_LOOK
            self._covered_since = looked.ends[0].stored_at if full else now - RATE_OVER
        if looked.ends:
            weight = 1 + looked.skipped / len(looked.ends)
            self._ends.extend((end, weight) for end in looked.ends)
        while self._ends and now - self._ends[0][0].stored_at > LATENCY_OVER:
            self._ends.popleft()

    def by_model(self, now: datetime) -> dict[str, Speed]:
        """The speed of each model that has any end."""
        ends: dict[str, list[tuple[End, float]]] = {}
        for end, weight in self._ends:
            ends.setdefault(end.model, []).append((end, weight))
        return {model: self._speed(of_model, now) for model, of_model in ends.items()}

    def _speed(self, ends: Sequence[tuple[End, float]], now: datetime) -> Speed:
        assert self._covered_since is not None
        over_s = min(RATE_OVER, now - self._covered_since).total_seconds()
        recent = sum(weight for end, weight in ends if now - end.stored_at <= RATE_OVER)
        took = sorted(end.took_s for end, _ in ends if end.status is Status.SUCCEEDED)
        return Speed(recent / over_s if over_s > 0 else None, percentile(took, 0.5), percentile(took, 0.99))


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of all values does not exceed; None of no values."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
