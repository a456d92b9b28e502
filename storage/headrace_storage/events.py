"""Events of jobs: published and forgotten by workers, followed by clients."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.js import api

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import BrokerUnavailable, UndecodableMessage
from headrace_contracts.event import AnyEvent, event_name
from headrace_contracts.names import Header, Stream, check_token, events_subject
from headrace_storage.connection import REQUEST_TIMEOUT_S, Connection

# Events live in the broker's memory: after its restart the last one may never come, and nobody should wait for it long.
LAST_EVENTS_S = 2.0


class StoredEvent(msgspec.Struct, frozen=True):
    """An event and where it is: the job's model and the place in the stream."""

    model: str
    sequence: int
    event: AnyEvent | None
    """None if it is no event we know."""


async def publish_event(connection: Connection, tenant: str, model: str, event: AnyEvent, encoding: Encoding) -> None:
    """Send an event without waiting for anybody to have it.

    Raises:
        BrokerUnavailable: there is no connection and its buffer is full.
    """
    subject = events_subject(tenant, model, event.job_id, event_name(event))
    with connection.errors():
        await connection.nc.publish(
            subject, codec.encode(event, encoding), headers={Header.CONTENT_TYPE.value: encoding.value}
        )


async def follow_events(
    connection: Connection, tenant: str, model: str, job_id: str, ended: asyncio.Event | None = None
) -> AsyncGenerator[AnyEvent, None]:
    """Every event of a job from its beginning, as they come.

    Ends some time after `ended` is set, when all events stored until then have been given; without it, never. Messages
    that are no event we know are passed over: a newer worker may send more kinds.
    """
    arrived: asyncio.Queue[Msg | int] = asyncio.Queue()
    with connection.errors():
        subscription = await connection.js.subscribe(
            events_subject(tenant, model, job_id, ">"),
            stream=Stream.EVENTS,
            cb=arrived.put,
            manual_ack=True,
            ordered_consumer=True,
            config=api.ConsumerConfig(deliver_policy=api.DeliverPolicy.ALL, inactive_threshold=30.0),
        )
    end = None
    if ended is not None:
        end = asyncio.create_task(_announce_last(connection, tenant, model, job_id, ended, arrived))
    seen = 0
    last: int | None = None
    try:
        while last is None or seen < last:
            async with asyncio.timeout(None if last is None else LAST_EVENTS_S):
                item = await arrived.get()
            if isinstance(item, int):
                last = item
                continue
            seen = item.metadata.sequence.stream
            with contextlib.suppress(UndecodableMessage):
                yield decode_event(item)
    except TimeoutError:
        return
    finally:
        if end is not None:
            end.cancel()
            await asyncio.wait([end])
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()


async def last_event(connection: Connection, tenant: str, job_id: str, event: str = ">") -> StoredEvent | None:
    """The newest event of a job whose model need not be known; `event` limits it to one kind."""
    subject = f"events.{check_token('tenant', tenant)}.*.{check_token('job id', job_id)}.{event}"
    return await _last(connection, subject)


async def _announce_last(
    connection: Connection, tenant: str, model: str, job_id: str, ended: asyncio.Event, into: asyncio.Queue[Msg | int]
) -> None:
    """Once the job has ended, say which sequence its last event has (0: it has none)."""
    await ended.wait()
    try:
        stored = await _last(connection, events_subject(tenant, model, job_id, ">"))
    except BrokerUnavailable:
        stored = None
    await into.put(0 if stored is None else stored.sequence)


async def _last(connection: Connection, subject: str) -> StoredEvent | None:
    """The last message on a subject or wildcard, by a direct get that a tenant's permissions can be limited to."""
    with connection.errors():
        message = await connection.nc.request(
            f"$JS.API.DIRECT.GET.{Stream.EVENTS}.{subject}", timeout=REQUEST_TIMEOUT_S
        )
    headers = message.headers or {}
    if "Status" in headers:
        return None
    try:
        event = decode_event(message)
    except UndecodableMessage:
        event = None
    return StoredEvent(headers["Nats-Subject"].split(".")[2], int(headers["Nats-Sequence"]), event)


def decode_event(message: Msg) -> AnyEvent:
    """Read an event message."""
    encoding = codec.encoding_of(message.headers, message.data)
    return codec.decode(message.data, AnyEvent, encoding)  # type: ignore[arg-type]  # a union is no type[T] to mypy
