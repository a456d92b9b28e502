"""Durations as people read them: in sentences, and in the columns of a table."""

SECOND, MINUTE_S, HOUR_S, DAY_S = 1.0, 60.0, 3600.0, 86_400.0


def duration(seconds: float) -> str:
    """About so long, as in `340 ms`, `12.3 s`, `4 min 5 s`, `2 h 5 min` or `3 d 1 h`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    for unit, name, rest_unit, rest_name in (
        (MINUTE_S, "min", SECOND, "s"),
        (HOUR_S, "h", MINUTE_S, "min"),
        (DAY_S, "d", HOUR_S, "h"),
    ):
        # Rounded first, so that no rest is a whole unit.
        rounded = round(seconds / rest_unit)
        whole, rest = divmod(rounded, round(unit / rest_unit))
        if name == "d" or rounded * rest_unit < (HOUR_S if name == "min" else DAY_S):
            return f"{whole} {name}" + (f" {rest} {rest_name}" if rest else "")
    raise AssertionError("days take any number")


def compact(seconds: float) -> str:
    """The same in at most six characters, as in `340ms`, `12.3s`, `4m05s`, `2h05m` or `3d01h`; days take more."""
    if seconds < 59.95:
        return duration(seconds).replace(" ", "")
    whole = round(seconds)
    if whole < HOUR_S:
        return f"{whole // 60}m{whole % 60:02}s"
    minutes = round(seconds / MINUTE_S)
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02}m"
    hours = round(seconds / HOUR_S)
    return f"{hours // 24}d{hours % 24:02}h"
