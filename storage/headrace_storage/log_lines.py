"""Log lines of jobs: sent by workers without waiting for anybody to have them, read by whoever owns the job."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import nats.js.errors

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import BrokerUnavailable, UndecodableMessage
from headrace_contracts.log_line import LogLine, LogLines
from headrace_contracts.names import Stream, logs_subject
from headrace_storage.connection import Connection
from headrace_storage.following import follow

# A broker that does not read fills the client's buffer, which a job's own messages need more than lines do.
MOST_PENDING_BYTES = 1024 * 1024


async def publish_lines(
    connection: Connection, tenant: str, model: str, job_id: str, lines: tuple[LogLine, ...]
) -> None:
    """Send lines of one job.

    Raises:
        BrokerUnavailable: there is no connection, or the broker does not take what was sent before.
    """
    if not connection.nc.is_connected or connection.nc.pending_data_size > MOST_PENDING_BYTES:
        raise BrokerUnavailable(connection.url, "log lines are not taken")
    body = codec.encode(LogLines(lines), Encoding.JSON)
    with connection.errors():
        await connection.nc.publish(logs_subject(tenant, model, job_id), body)


async def may_send_lines(connection: Connection) -> None:
    """Return if our role may send lines, whether or not there is a stream that keeps them.

    Raises:
        BrokerForbidden: it may not.
        BrokerUnavailable: no answer.
    """
    with connection.errors(), contextlib.suppress(nats.js.errors.NotFoundError):
        await connection.js.stream_info(Stream.LOGS)


async def follow_lines(
    connection: Connection, tenant: str, model: str, job_id: str, ended: asyncio.Event | None = None
) -> AsyncGenerator[LogLine, None]:
    """Every line of a job that is kept, as they come; those of one worker are in order.

    Ends some time after `ended` is set, when all lines stored until then have been given; without it, never.
    """
    subject = logs_subject(tenant, model, job_id)
    async with contextlib.aclosing(follow(connection, Stream.LOGS, subject, ended)) as messages:
        async for message in messages:
            with contextlib.suppress(UndecodableMessage):
                for line in codec.decode(message.data, LogLines, Encoding.JSON).lines:
                    yield line
