"""What was heard of arriving jobs: how many lately, and when those came that still wait. No I/O."""

import collections
from datetime import datetime

from headrace_contracts.names import Lane
from headrace_storage.arrivals import Arrival

# The rate is that of this time: shorter follows a burst at once, longer is steadier.
WINDOW_S = 30
# Arrivals remembered for each lane. Of those that came before, the broker has to be asked.
MOST_REMEMBERED = 20_000


class Arrivals:
    """The arrivals of all models since we listen."""

    def __init__(self) -> None:
        self._counts: dict[str, collections.deque[tuple[int, int]]] = {}
        """Per model: second of the monotonic clock, and arrivals in it."""
        self._stored_at: dict[tuple[str, Lane], collections.OrderedDict[int, datetime]] = {}

    def heard(self, arrival: Arrival, now: float) -> None:
        """Take one in."""
        counts = self._counts.setdefault(arrival.model, collections.deque(maxlen=WINDOW_S + 1))
        second = int(now)
        if counts and counts[-1][0] == second:
            counts[-1] = (second, counts[-1][1] + 1)
        else:
            counts.append((second, 1))
        known = self._stored_at.setdefault((arrival.model, arrival.lane), collections.OrderedDict())
        known[arrival.sequence] = arrival.stored_at
        if len(known) > MOST_REMEMBERED:
            known.popitem(last=False)

    def rate(self, model: str, now: float) -> float:
        """Jobs per second of a model, over the last half minute."""
        recent = [count for second, count in self._counts.get(model, ()) if second > now - WINDOW_S]
        return sum(recent) / WINDOW_S

    def oldest_after(self, model: str, lane: Lane, delivered: int, waiting: int) -> datetime | None:
        """When the first job of a lane behind sequence `delivered` was stored; None: not all `waiting` were heard."""
        known = self._stored_at.get((model, lane))
        while known:
            sequence, stored_at = next(iter(known.items()))
            if sequence > delivered:
                return stored_at if len(known) >= waiting else None
            del known[sequence]
        return None
