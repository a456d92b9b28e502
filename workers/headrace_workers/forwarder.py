"""Forward what untrusted tenants submit: from each one's ingress stream to JOBS, one message after the other.

Several workers may do so at once: the broker gives a message to one of them, and forwarding twice stores once.
"""

import asyncio
from contextlib import suppress

import msgspec
import structlog

from headrace_contracts import codec
from headrace_contracts.clock import Clock
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import (
    BrokerUnavailable,
    ErrorCode,
    Fault,
    MessageTooLarge,
    QueueFull,
    UndecodableMessage,
)
from headrace_contracts.job import CancelRequest
from headrace_contracts.names import INGRESS_PREFIX, is_token
from headrace_contracts.result import Result, ResultError, Status
from headrace_storage.connection import Connection
from headrace_storage.control import send_cancel
from headrace_storage.ingress import (
    Arrival,
    forward,
    give_back,
    ingress_streams,
    next_arrival,
    remove,
    waiting_in_jobs,
)
from headrace_storage.results import commit_result

# How soon a tenant that was added is served.
LOOK_EVERY_S = 5.0
# Jobs of one untrusted tenant in JOBS at once. The rest waits in its own stream, so a flood leaves the queue to others.
IN_JOBS = 100
# Forwards between two counts of them; each worker that forwards may exceed IN_JOBS by this.
COUNT_EVERY = 10
PAUSE_S = 0.5


async def forward_ingress(connection: Connection, clock: Clock) -> None:
    """Serve every ingress stream there is until canceled."""
    log = structlog.get_logger()
    serving: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as tasks:
        while True:
            try:
                there = await ingress_streams(connection)
            except BrokerUnavailable as error:
                log.warning("cannot look for ingress streams", error=str(error))
            else:
                for gone in serving.keys() - set(there):
                    serving.pop(gone).cancel()
                for name in set(there) - serving.keys():
                    serving[name] = tasks.create_task(_serve(connection, clock, name))
            await asyncio.sleep(LOOK_EVERY_S)


async def _serve(connection: Connection, clock: Clock, stream: str) -> None:
    """Forward the messages of one tenant."""
    log = structlog.get_logger().bind(tenant=stream.removeprefix(INGRESS_PREFIX))
    room = 0
    while True:
        try:
            arrival = await next_arrival(connection, stream)
            if arrival is None:
                continue
            if room == 0 and not arrival.is_cancel:
                waiting = await waiting_in_jobs(connection, arrival.tenant)
                room = min(COUNT_EVERY, max(0, IN_JOBS - waiting))
            if arrival.is_cancel:
                await _cancel(connection, clock, arrival)
            elif room == 0:
                await give_back(connection, arrival, PAUSE_S)
            else:
                room -= 1
                await _forward(connection, clock, arrival)
        except (BrokerUnavailable, QueueFull) as error:
            log.warning("ingress waits", error=str(error))
            await asyncio.sleep(PAUSE_S)


async def _forward(connection: Connection, clock: Clock, arrival: Arrival) -> None:
    try:
        await forward(connection, arrival)
    except QueueFull:
        # The jobs of this tenant wait in its own stream; what fills JOBS is told by whoever publishes there.
        await give_back(connection, arrival, PAUSE_S)
    except MessageTooLarge as error:
        encoding = codec.encoding_to_answer_in(arrival.headers, arrival.data)
        refused = ResultError(ErrorCode.INVALID_INPUT, str(error), Fault.INPUT, retryable=False)
        if is_token(arrival.model):
            result = _end(arrival, arrival.job_id, Status.FAILED, refused, encoding, clock)
            await commit_result(connection, arrival.tenant, result, encoding)
        await remove(connection, arrival)


async def _cancel(connection: Connection, clock: Clock, arrival: Arrival) -> None:
    """End a job as canceled on behalf of its tenant, and stop it if it runs; what is no such request is dropped."""
    with suppress(UndecodableMessage):
        encoding = codec.encoding_of(arrival.headers, arrival.data)
        wanted = codec.decode(arrival.data, CancelRequest, encoding)
        if is_token(wanted.job_id) and is_token(arrival.model):
            error = ResultError(ErrorCode.CANCELED, "canceled by its submitter", Fault.INPUT, retryable=False)
            result = _end(arrival, wanted.job_id, Status.CANCELED, error, encoding, clock)
            result = msgspec.structs.replace(result, metadata=wanted.metadata)
            await commit_result(connection, arrival.tenant, result, encoding)
            await send_cancel(connection, arrival.tenant, arrival.model, wanted.job_id)
    await remove(connection, arrival)


def _end(arrival: Arrival, job_id: str, status: Status, error: ResultError, encoding: Encoding, clock: Clock) -> Result:
    return Result(
        id=job_id,
        model=arrival.model,
        version="",
        status=status,
        output=msgspec.Raw(codec.encode(None, encoding)),
        attempts=0,
        created_at=arrival.stored_at,
        completed_at=clock.now(),
        error=error,
    )
