"""Terminal results: put once, read by subject, awaited.

A result is the only truth about the end of a job. Whoever publishes first wins; everyone else reads the winner.
"""

import asyncio
from collections.abc import Mapping

import msgspec
from nats.aio.msg import Msg

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import QueueFull, UndecodableMessage
from headrace_contracts.names import Header, Stream, check_token, results_subject
from headrace_contracts.result import Result
from headrace_contracts.trace_context import TraceContext
from headrace_storage.connection import Connection
from headrace_storage.publishing import WrongLastSequence, publish
from headrace_storage.trace_headers import trace_headers

EXPECT_EMPTY = {"Nats-Expected-Last-Subject-Sequence": "0"}

# A disk sync takes about this long.
FIRST_LOOK_S = 0.001
# What was published while we were disconnected reached no subscription, so a waiter looks now and then.
LONGEST_LOOK_S = 2.0


class Committed(msgspec.Struct, frozen=True):
    """The result of a job after a commit, and whether it is the one we brought."""

    won: bool
    result: Result


async def commit_result(
    connection: Connection, tenant: str, result: Result, encoding: Encoding, trace: TraceContext | None = None
) -> Committed:
    """Make `result` the end of its job, unless the job has ended already; `trace` goes with it.

    Raises:
        QueueFull: the stream of results is full.
        BrokerUnavailable: no answer until the deadline; the result may be stored all the same.
    """
    subject = results_subject(tenant, result.model, result.id)
    data = codec.encode(result, encoding)
    headers = {**EXPECT_EMPTY, Header.CONTENT_TYPE: encoding, **trace_headers(trace)}
    try:
        await publish(connection, subject, data, headers)
    except (WrongLastSequence, QueueFull):
        # Also what a retry of our own publish meets when the first try was stored and its receipt lost.
        stored = await _stored(connection, subject)
        if stored is None:
            raise
        return Committed(won=bytes(stored.data) == data, result=_decode(stored.headers, stored.data))
    return Committed(won=True, result=result)


async def get_result(connection: Connection, tenant: str, model: str, job_id: str) -> Result | None:
    """The result of a job, or None while it has none.

    Raises:
        UndecodableMessage: something else was published on the subject.
    """
    stored = await _stored(connection, results_subject(tenant, model, job_id))
    return None if stored is None else _decode(stored.headers, stored.data)


async def has_ended(connection: Connection, tenant: str, model: str, job_id: str) -> bool:
    """Whether a job has its end; anything on its subject is one, since the stream takes no other message there."""
    return await _stored(connection, results_subject(tenant, model, job_id)) is not None


async def find_result(connection: Connection, tenant: str, job_id: str) -> Result | None:
    """The result of a job whose model is not known, or None while it has none.

    Raises:
        UndecodableMessage: something else was published on the subject.
    """
    stored = await _stored(connection, f"results.{check_token('tenant', tenant)}.*.{check_token('job id', job_id)}")
    return None if stored is None else _decode(stored.headers, stored.data)


async def wait_result(connection: Connection, tenant: str, model: str, job_id: str) -> Result:
    """The result of a job, as soon as it has one."""
    published = asyncio.Event()

    async def on_message(_: Msg) -> None:
        published.set()

    with connection.errors():
        subscription = await connection.nc.subscribe(results_subject(tenant, model, job_id), cb=on_message)
    # A result may have been published just before we subscribed and be stored just after we look: look again soon.
    pause_s = FIRST_LOOK_S
    try:
        while True:
            result = await get_result(connection, tenant, model, job_id)
            if result is not None:
                return result
            try:
                async with asyncio.timeout(pause_s):
                    await published.wait()
            except TimeoutError:
                pause_s = min(2 * pause_s, LONGEST_LOOK_S)
            else:
                # What we heard is not stored yet, and may be refused: look until it is there, soon at first.
                published.clear()
                pause_s = FIRST_LOOK_S
    finally:
        await subscription.unsubscribe()


async def _stored(connection: Connection, subject: str) -> Msg | None:
    """The message on a subject of RESULTS, by a direct get that a tenant's permissions can be limited to."""
    with connection.errors():
        message = await connection.nc.request(f"$JS.API.DIRECT.GET.{Stream.RESULTS}.{subject}", timeout=5.0)
    status = (message.headers or {}).get("Status")
    return message if status is None else None


def _decode(headers: Mapping[str, str] | None, data: bytes) -> Result:
    try:
        return codec.decode(data, Result, codec.encoding_of(headers, data))
    except UndecodableMessage as error:
        raise UndecodableMessage("result", bytes(data), error.reason) from error
