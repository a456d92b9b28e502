"""Sends the log lines about jobs to the broker, a moment after they were written. Best effort: no job waits for it."""

import asyncio
import contextlib
from typing import Final

import structlog

from headrace_contracts.errors import BrokerForbidden, BrokerUnavailable, InvalidName
from headrace_contracts.log_line import LogLine
from headrace_storage.connection import Connection
from headrace_storage.log_lines import may_send_lines, publish_lines
from headrace_telemetry.job_lines import JobLine, JobLines

# The lines of a short job make one message. Longer: whoever follows a job sees them later.
TOGETHER_S: Final = 0.1
# Of one message: far below what the smallest broker takes.
MOST_IN_A_MESSAGE: Final = 100
PAUSE_S: Final = 0.5
GET_RIGHTS: Final = "headrace auth update FOLDER, restart the broker, headrace auth apply FOLDER"


async def send_lines(connection: Connection, lines: JobLines) -> None:
    """Send lines until canceled; what is there then can be sent with `send_rest`."""
    log = structlog.get_logger()
    reconnected = asyncio.Event()
    connection.on_reconnect(reconnected.set)
    while not await _allowed(connection):
        lines.close()
        log.warning("log lines stay here: this role may not send them", do=GET_RIGHTS)
        # A broker that was started again may know more of us.
        await reconnected.wait()
        reconnected.clear()
    lines.open()
    while True:
        await lines.wait()
        await asyncio.sleep(TOGETHER_S)
        if not connection.is_connected:
            # Until then the lines wait in their bounded place, and not in the client's buffer.
            await asyncio.sleep(PAUSE_S)
            continue
        await send_rest(connection, lines)
        if dropped := lines.take_dropped():
            log.warning("log lines dropped", count=dropped)


async def send_rest(connection: Connection, lines: JobLines) -> None:
    """Send all lines there are; those that the broker does not take are dropped and counted."""
    for (tenant, model, job_id), of_job in _by_job(lines.take()).items():
        for start in range(0, len(of_job), MOST_IN_A_MESSAGE):
            some = tuple(of_job[start : start + MOST_IN_A_MESSAGE])
            try:
                await publish_lines(connection, tenant, model, job_id, some)
            except (BrokerUnavailable, InvalidName):
                lines.drop(len(some))


async def _allowed(connection: Connection) -> bool:
    """Whether our role may send them. The server logs each refusal: one question spares it thousands."""
    while True:
        with contextlib.suppress(BrokerUnavailable):
            try:
                await may_send_lines(connection)
            except BrokerForbidden:
                return False
            return True
        await asyncio.sleep(PAUSE_S)


def _by_job(lines: list[JobLine]) -> dict[tuple[str, str, str], list[LogLine]]:
    grouped: dict[tuple[str, str, str], list[LogLine]] = {}
    for line in lines:
        grouped.setdefault((line.tenant, line.model, line.job_id), []).append(line.line)
    return grouped
