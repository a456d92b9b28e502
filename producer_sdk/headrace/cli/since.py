"""The moment that a `--since` means: so long ago, or a date."""

import re
from datetime import UTC, datetime, timedelta

import click

_AGO = re.compile(r"(\d+)([mhdw])")
_UNITS = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def moment(text: str, now: datetime) -> datetime:
    """Read `90m`, `24h`, `7d`, `2w`, or an ISO date with or without a time; UTC unless it says otherwise.

    Raises:
        click.BadParameter: it is none of these, or lies ahead.
    """
    ago = _AGO.fullmatch(text)
    try:
        meant = now - int(ago[1]) * _UNITS[ago[2]] if ago else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        form = "write 90m, 24h, 7d or 2w, or a date as in 2026-11-01 or 2026-11-01T08:00"
        raise click.BadParameter(f"{text[:40]!r} is no time: {form}", param_hint="--since") from None
    meant = meant if meant.tzinfo else meant.replace(tzinfo=UTC)
    if meant > now:
        raise click.BadParameter(f"{meant.astimezone(UTC):%Y-%m-%d %H:%M} UTC lies ahead", param_hint="--since")
    return meant.astimezone(UTC)
