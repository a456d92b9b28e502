"""Events of jobs: published and forgotten by workers, followed by clients."""

from collections.abc import AsyncIterator

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import api

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.event import AnyEvent, event_name
from headrace_contracts.names import Header, Stream, events_subject
from headrace_storage.connection import Connection


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


async def follow_events(connection: Connection, tenant: str, model: str, job_id: str) -> AsyncIterator[AnyEvent]:
    """Every event of a job from its beginning, as they come; the caller stops when it has the result."""
    subject = events_subject(tenant, model, job_id, ">")
    with connection.errors():
        subscription = await connection.js.subscribe(
            subject,
            stream=Stream.EVENTS,
            ordered_consumer=True,
            config=api.ConsumerConfig(deliver_policy=api.DeliverPolicy.ALL, inactive_threshold=30.0),
        )
    try:
        async for message in subscription.messages:
            yield decode_event(message)
    finally:
        await subscription.unsubscribe()


def decode_event(message: Msg) -> AnyEvent:
    """Read an event message."""
    encoding = codec.encoding_of(message.headers, message.data)
    return codec.decode(message.data, AnyEvent, encoding)  # type: ignore[arg-type]  # a union is no type[T] to mypy
