"""Jobs that no consumer will ever deliver, because their model is not in the registry."""

from collections.abc import AsyncIterator
from datetime import datetime

import msgspec
import nats.js.errors

from headrace_contracts.names import Stream
from headrace_storage.connection import Connection

# "sequence not found" and "no message found": which one depends on whether the stream was ever that long.
_ALREADY_GONE = (10043, 10057)


class Unroutable(msgspec.Struct, frozen=True):
    """A message of the JOBS stream that nobody pulls."""

    subject: str
    headers: dict[str, str]
    data: bytes
    sequence: int
    stored_at: datetime


async def subjects_with_jobs(connection: Connection) -> list[str]:
    """Subjects of the JOBS stream that hold messages now."""
    with connection.errors():
        info = await connection.js.stream_info(Stream.JOBS, subjects_filter="jobs.>")
    return sorted(info.state.subjects or {})


async def messages_of(connection: Connection, subject: str) -> AsyncIterator[Unroutable]:
    """The messages of one subject, oldest first."""
    sequence = 1
    while True:
        with connection.errors():
            try:
                message = await connection.js.get_msg(
                    Stream.JOBS, seq=sequence, subject=subject, direct=True, next=True
                )
            except nats.js.errors.NotFoundError:
                return
        assert message.seq is not None
        assert message.time is not None
        yield Unroutable(subject, dict(message.headers or {}), message.data or b"", message.seq, message.time)
        sequence = message.seq + 1


async def remove_message(connection: Connection, sequence: int) -> None:
    """Take a message out of JOBS; no error if it is gone."""
    with connection.errors():
        try:
            # Without `no_erase` the server overwrites the message on disk, which takes 30 times as long.
            await connection.api(f"STREAM.MSG.DELETE.{Stream.JOBS}", b'{"seq":%d,"no_erase":true}' % sequence)
        except nats.js.errors.APIError as error:
            if error.err_code not in _ALREADY_GONE:
                raise
