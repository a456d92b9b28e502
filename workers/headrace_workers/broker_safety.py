"""A worker does not take jobs from a broker that could lose them."""

import structlog

from headrace_contracts.errors import UnsafeBroker
from headrace_contracts.settings import NatsSettings
from headrace_storage.connection import Connection
from headrace_storage.doctor import Level, examine_safety


async def refuse_unsafe(
    connection: Connection, settings: NatsSettings, models: tuple[str, ...], *, allow_unsafe: bool
) -> None:
    """Return if jobs of these models are safe on this broker; log what is not known, or was allowed.

    Raises:
        UnsafeBroker: names every danger.
    """
    log = structlog.get_logger()
    dangers = []
    for finding in await examine_safety(connection, settings, models):
        match finding.level:
            case Level.FAIL:
                dangers.append(f"{finding.check}: {finding.found}")
            case Level.UNKNOWN | Level.WARNING:
                log.warning("the broker may not be safe", check=finding.check, found=finding.found, do=finding.advice)
            case Level.OK:
                pass
    if dangers and not allow_unsafe:
        raise UnsafeBroker(connection.url, tuple(dangers))
    if dangers:
        log.warning("the broker is not safe and is used all the same", dangers=dangers)
