"""Which bounds hold at a moment: those of the model, and those of the windows of its schedule."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from headrace_contracts.scaling import Scaling, Window


class Bounds(msgspec.Struct, frozen=True):
    """Fewest and most workers, and where they come from if not from the model itself."""

    minimum: int
    maximum: int
    note: str = ""


def bounds_at(scaling: Scaling, wall: datetime) -> Bounds:
    """Bounds at `wall`, which is aware. Of windows that overlap the later in the list holds, bound by bound.

    A window that gives one bound moves the other out of its way: eight warm workers are eight, whatever `max_workers`
    is at other times. A window that cannot be read changes nothing and is named in the note.
    """
    minimum: int | None = None
    maximum: int | None = None
    notes = []
    for window in scaling.schedule:
        problem = window_problem(window)
        if problem:
            notes.append(f"schedule: {problem}")
        elif _holds(window, wall):
            notes.append(f"schedule `{window.cron}` {window.timezone}")
            minimum = window.min_workers if window.min_workers is not None else minimum
            maximum = window.max_workers if window.max_workers is not None else maximum
    least = scaling.min_workers if minimum is None else minimum
    most = scaling.max_workers if maximum is None else maximum
    if least > most and maximum is None:
        most = least
    return Bounds(min(least, most), most, "; ".join(notes))


def window_problem(window: Window) -> str:
    """What is wrong with a window, in a sentence; empty if nothing is."""
    return _problem(window.cron, window.timezone)


def _holds(window: Window, wall: datetime) -> bool:
    """Whether it began within the last `duration_s`."""
    try:
        earliest = wall.astimezone(UTC) - timedelta(seconds=window.duration_s)
    except OverflowError:
        return False
    # Windows begin at whole minutes, so what comes after a moment comes after its minute.
    start = _next_start(window.cron, window.timezone, earliest.replace(second=0, microsecond=0))
    return start is not None and start <= wall


@lru_cache(maxsize=256)
def _problem(cron: str, timezone: str) -> str:
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return f"no timezone is called `{timezone}`; IANA names are as in `Europe/Berlin`"
    try:
        CronSim(cron, datetime(2000, 1, 1, tzinfo=zone))
    except (CronSimError, ValueError) as error:
        return f"cron `{cron}` cannot be read: {error}"
    return ""


@lru_cache(maxsize=256)
def _next_start(cron: str, timezone: str, after: datetime) -> datetime | None:
    """The first start after a moment, in UTC: of an hour that is there twice, times of its zone do not say which."""
    try:
        for start in CronSim(cron, after.astimezone(ZoneInfo(timezone))):
            # In the second of the two it goes on from the first.
            if (found := start.astimezone(UTC)) > after:
                return found
    except (CronSimError, ValueError, OverflowError):
        pass
    return None
