"""Events of jobs: published and forgotten by workers, followed by clients."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec
from nats.aio.msg import Msg

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import BrokerUnavailable, UndecodableMessage
from headrace_contracts.event import AnyEvent, event_name
from headrace_contracts.names import Header, Stream, check_token, events_subject
from headrace_storage.connection import Connection
from headrace_storage.following import follow, last_message

# A broker that does not read fills the client's buffer, and past its end a publish waits. No job waits for an event.
MOST_PENDING_BYTES = 4 * 1024 * 1024


class StoredEvent(msgspec.Struct, frozen=True):
    """An event and where it is: the job's model and the place in the stream."""

    model: str
    sequence: int
    event: AnyEvent | None
    """None if it is no event we know."""


async def publish_event(connection: Connection, tenant: str, model: str, event: AnyEvent, encoding: Encoding) -> None:
    """Send an event without waiting for anybody to have it.

    Raises:
        BrokerUnavailable: there is no connection, or the broker does not take what was sent before.
    """
    if not connection.nc.is_connected or connection.nc.pending_data_size > MOST_PENDING_BYTES:
        raise BrokerUnavailable(connection.url, "events are not taken")
    subject = events_subject(tenant, model, event.job_id, event_name(event))
    with connection.errors():
        await connection.nc.publish(
            subject, codec.encode(event, encoding), headers={Header.CONTENT_TYPE.value: encoding.value}
        )


async def follow_events(
    connection: Connection, tenant: str, model: str, job_id: str, ended: asyncio.Event | None = None
) -> AsyncGenerator[AnyEvent, None]:
    """Every event of a job from its beginning, as they come; an outage of the broker is waited for.

    Ends some time after `ended` is set, when all events stored until then have been given; without it, never. Messages
    that are no event we know are passed over: a newer worker may send more kinds.
    """
    subject = events_subject(tenant, model, job_id, ">")
    async with contextlib.aclosing(follow(connection, Stream.EVENTS, subject, ended)) as messages:
        async for message in messages:
            with contextlib.suppress(UndecodableMessage):
                yield decode_event(message)


async def last_event(connection: Connection, tenant: str, job_id: str, event: str = ">") -> StoredEvent | None:
    """The newest event of a job whose model need not be known; `event` limits it to one kind."""
    subject = f"events.{check_token('tenant', tenant)}.*.{check_token('job id', job_id)}.{event}"
    message = await last_message(connection, Stream.EVENTS, subject)
    if message is None:
        return None
    try:
        known = decode_event(message)
    except UndecodableMessage:
        known = None
    headers = message.headers
    return StoredEvent(headers["Nats-Subject"].split(".")[2], int(headers["Nats-Sequence"]), known)


def decode_event(message: Msg) -> AnyEvent:
    """Read an event message."""
    encoding = codec.encoding_of(message.headers, message.data)
    return codec.decode(message.data, AnyEvent, encoding)  # type: ignore[arg-type]  # a union is no type[T] to mypy
