"""Events of jobs: published and forgotten by workers, followed by clients."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from uuid import uuid4

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import BrokerForbidden, BrokerUnavailable, UndecodableMessage
from headrace_contracts.event import AnyEvent, event_name
from headrace_contracts.names import Header, Stream, check_token, events_subject
from headrace_storage.connection import REQUEST_TIMEOUT_S, Connection

# Events live in the broker's memory: after its restart the last one may never come, and nobody should wait for it long.
LAST_EVENTS_S = 2.0
RETRY_S = 0.5
# A broker that does not read fills the client's buffer, and past its end a publish waits. No job waits for an event.
MOST_PENDING_BYTES = 4 * 1024 * 1024
# The broker forgets a follower that has been away for this long.
IDLE_S = 30.0


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
    # A message, the sequence of the last one (0: there is none), or None when the feed has to be set up.
    arrived: asyncio.Queue[Msg | int | None] = asyncio.Queue()
    inbox = connection.nc.new_inbox()
    with connection.errors():
        subscription = await connection.nc.subscribe(inbox, cb=arrived.put)
    stop_listening = connection.on_reconnect(lambda: arrived.put_nowait(None))
    ending = asyncio.create_task(_announce_last(connection, subject, ended, arrived))
    arrived.put_nowait(None)
    seen = 0
    last: int | None = None
    try:
        while True:
            if last is not None and seen >= last:
                # A result is stored by another stream, and may be read before the events that were sent ahead of it.
                if (newest := await _last_sequence(connection, subject)) <= last:
                    return
                last = newest
            async with asyncio.timeout(None if last is None else LAST_EVENTS_S):
                item = await arrived.get()
            if item is None:
                try:
                    seen = await _feed(connection, subject, inbox, seen, ended)
                except BrokerForbidden:
                    break
            elif isinstance(item, int):
                last = item
            elif item.metadata.sequence.stream > seen:
                seen = item.metadata.sequence.stream
                with contextlib.suppress(UndecodableMessage):
                    yield decode_event(item)
    except TimeoutError:
        return
    finally:
        stop_listening()
        ending.cancel()
        await asyncio.wait([ending])
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()
    async with contextlib.aclosing(_follow_live(connection, subject, ended)) as events:
        async for event in events:
            yield event


async def _follow_live(
    connection: Connection, subject: str, ended: asyncio.Event | None
) -> AsyncGenerator[AnyEvent, None]:
    """Events from now on, for a role that may make no consumer: it has what is published while it listens."""
    arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
    with connection.errors():
        subscription = await connection.nc.subscribe(subject, cb=arrived.put)
    ending = asyncio.create_task(_announce_end(subscription, ended, arrived))
    try:
        while (message := await arrived.get()) is not None:
            with contextlib.suppress(UndecodableMessage):
                yield decode_event(message)
    finally:
        ending.cancel()
        await asyncio.wait([ending])
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()


async def _announce_end(
    subscription: Subscription, ended: asyncio.Event | None, into: asyncio.Queue[Msg | None]
) -> None:
    """After the end of the job, and after all that the server had sent us until then."""
    if ended is None:
        return
    await ended.wait()
    with contextlib.suppress(nats.errors.Error, TimeoutError):
        async with asyncio.timeout(LAST_EVENTS_S):
            await subscription.drain()
    await into.put(None)


async def _feed(connection: Connection, subject: str, inbox: str, seen: int, ended: asyncio.Event | None) -> int:
    """Have the broker send the events after `seen` to `inbox`; returns what now counts as seen.

    The client's own ordered consumer cannot be confined to one tenant's subjects, and does not find back after a
    restart, which empties the stream and starts its sequences anew.
    """
    while True:
        is_last_try = ended is not None and ended.is_set()
        try:
            if seen > 0:
                last = await _last(connection, subject)
                if last is None or last.sequence < seen:
                    seen = 0
            name = f"follow-{uuid4().hex}"
            config = {
                "name": name,
                "deliver_subject": inbox,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": seen + 1,
                "filter_subject": subject,
                "ack_policy": "none",
                "inactive_threshold": round(IDLE_S * 1e9),
                "mem_storage": True,
                "num_replicas": 1,
            }
            request = msgspec.json.encode({"stream_name": Stream.EVENTS, "config": config})
            await connection.api(f"CONSUMER.CREATE.{Stream.EVENTS}.{name}.{subject}", request)
        except BrokerForbidden:
            raise
        except (BrokerUnavailable, nats.js.errors.APIError):
            # Events are for show: whoever follows has the result to wait for, and learns from it of a long outage.
            if is_last_try:
                return seen
            await asyncio.sleep(RETRY_S)
        else:
            return seen


async def last_event(connection: Connection, tenant: str, job_id: str, event: str = ">") -> StoredEvent | None:
    """The newest event of a job whose model need not be known; `event` limits it to one kind."""
    subject = f"events.{check_token('tenant', tenant)}.*.{check_token('job id', job_id)}.{event}"
    return await _last(connection, subject)


async def _announce_last(
    connection: Connection, subject: str, ended: asyncio.Event | None, into: asyncio.Queue[Msg | int | None]
) -> None:
    """Once the job has ended, say which sequence its last event has."""
    if ended is None:
        return
    await ended.wait()
    await into.put(await _last_sequence(connection, subject))


async def _last_sequence(connection: Connection, subject: str) -> int:
    """Sequence of the last message on a subject; 0 if there is none, or no answer."""
    try:
        stored = await _last(connection, subject)
    except BrokerUnavailable:
        return 0
    return 0 if stored is None else stored.sequence


async def _last(connection: Connection, subject: str) -> StoredEvent | None:
    """The last message on a subject or wildcard, by a direct get that a tenant's permissions can be limited to."""
    with connection.errors():
        try:
            message = await connection.nc.request(
                f"$JS.API.DIRECT.GET.{Stream.EVENTS}.{subject}", timeout=REQUEST_TIMEOUT_S
            )
        except nats.errors.NoRespondersError:
            # A broker that restarts loses its memory streams; a worker makes them anew.
            return None
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
