"""Follow what a stream keeps of one job: from its beginning, through outages of the broker, to the job's end.

For streams in the broker's memory that a tenant's role may read: the subjects used here can be limited to one tenant.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from uuid import uuid4

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from headrace_contracts.errors import BrokerForbidden, BrokerUnavailable
from headrace_contracts.names import Stream
from headrace_storage.connection import REQUEST_TIMEOUT_S, Connection

# They live in the broker's memory: after its restart the last one may never come, and nobody should wait for it long.
LAST_ONES_S = 2.0
RETRY_S = 0.5
# The broker forgets a follower that has been away for this long.
IDLE_S = 30.0


async def follow(
    connection: Connection, stream: Stream, subject: str, ended: asyncio.Event | None = None
) -> AsyncGenerator[Msg, None]:
    """Every message of a subject or wildcard from the first, as they come; an outage of the broker is waited for.

    Ends some time after `ended` is set, when all that was stored until then has been given; without it, never.
    """
    # A message, the sequence of the last one (0: there is none), or None when the feed has to be set up.
    arrived: asyncio.Queue[Msg | int | None] = asyncio.Queue()
    inbox = connection.nc.new_inbox()
    with connection.errors():
        subscription = await connection.nc.subscribe(inbox, cb=arrived.put)
    stop_listening = connection.on_reconnect(lambda: arrived.put_nowait(None))
    ending: asyncio.Task[None] | None = None
    arrived.put_nowait(None)
    seen = 0
    last: int | None = None
    try:
        while True:
            if last is not None and seen >= last:
                # A result is stored by another stream, and may be read before the events that were sent ahead of it.
                if (newest := await _last_sequence(connection, stream, subject)) <= last:
                    return
                last = newest
            async with asyncio.timeout(None if last is None else LAST_ONES_S):
                item = await arrived.get()
            if item is None:
                try:
                    seen = await _feed(connection, stream, subject, inbox, seen, ended)
                except BrokerForbidden:
                    break
                # Not before: a role that may not read would be refused twice.
                ending = ending or asyncio.create_task(_announce_last(connection, stream, subject, ended, arrived))
            elif isinstance(item, int):
                last = item
            elif item.metadata.sequence.stream > seen:
                seen = item.metadata.sequence.stream
                yield item
    except TimeoutError:
        return
    finally:
        stop_listening()
        if ending is not None:
            ending.cancel()
            await asyncio.wait([ending])
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()
    async with contextlib.aclosing(_follow_live(connection, subject, ended)) as live:
        async for message in live:
            yield message


async def _follow_live(connection: Connection, subject: str, ended: asyncio.Event | None) -> AsyncGenerator[Msg, None]:
    """What comes from now on, for a role that may make no consumer: it has what is published while it listens."""
    arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
    with connection.errors():
        subscription = await connection.nc.subscribe(subject, cb=arrived.put)
    ending = asyncio.create_task(_announce_end(subscription, ended, arrived))
    try:
        while (message := await arrived.get()) is not None:
            yield message
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
        async with asyncio.timeout(LAST_ONES_S):
            await subscription.drain()
    await into.put(None)


async def _feed(
    connection: Connection, stream: Stream, subject: str, inbox: str, seen: int, ended: asyncio.Event | None
) -> int:
    """Have the broker send the messages after `seen` to `inbox`; returns what now counts as seen.

    The client's own ordered consumer cannot be confined to one tenant's subjects, and does not find back after a
    restart, which empties the stream and starts its sequences anew.
    """
    while True:
        is_last_try = ended is not None and ended.is_set()
        try:
            if seen > 0:
                last = await last_message(connection, stream, subject)
                if last is None or int(last.headers["Nats-Sequence"]) < seen:
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
            request = msgspec.json.encode({"stream_name": stream, "config": config})
            await connection.api(f"CONSUMER.CREATE.{stream}.{name}.{subject}", request)
        except BrokerForbidden:
            raise
        except (BrokerUnavailable, nats.js.errors.APIError):
            # They are for show: whoever follows has the result to wait for, and learns from it of a long outage.
            if is_last_try:
                return seen
            await asyncio.sleep(RETRY_S)
        else:
            return seen


async def _announce_last(
    connection: Connection,
    stream: Stream,
    subject: str,
    ended: asyncio.Event | None,
    into: asyncio.Queue[Msg | int | None],
) -> None:
    """Once the job has ended, say which sequence its last message has."""
    if ended is None:
        return
    await ended.wait()
    await into.put(await _last_sequence(connection, stream, subject))


async def _last_sequence(connection: Connection, stream: Stream, subject: str) -> int:
    """Sequence of the last message on a subject; 0 if there is none, or no answer."""
    try:
        stored = await last_message(connection, stream, subject)
    except BrokerUnavailable:
        return 0
    return 0 if stored is None else int(stored.headers["Nats-Sequence"])


async def last_message(connection: Connection, stream: Stream, subject: str) -> Msg | None:
    """The last message on a subject or wildcard, by a direct get that a tenant's permissions can be limited to."""
    with connection.errors():
        try:
            message: Msg = await connection.nc.request(
                f"$JS.API.DIRECT.GET.{stream}.{subject}", timeout=REQUEST_TIMEOUT_S
            )
        except nats.errors.NoRespondersError:
            # A broker that restarts loses its memory streams; a worker makes them anew.
            return None
    return None if "Status" in (message.headers or {}) else message
