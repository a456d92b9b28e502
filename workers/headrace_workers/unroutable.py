"""End jobs for models that the registry does not have: no consumer delivers them, so they would wait for ever."""

import asyncio

import msgspec
import structlog

from headrace_contracts import codec
from headrace_contracts.clock import Clock
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import (
    BrokerUnavailable,
    ErrorCode,
    Fault,
    InvalidName,
    QueueFull,
    UndecodableMessage,
    UnknownModel,
)
from headrace_contracts.job import job_id_of
from headrace_contracts.names import JobAddress, job_id_of_sequence, parse_jobs_subject
from headrace_contracts.result import Result, ResultError, Status
from headrace_storage.connection import Connection
from headrace_storage.dead import bury
from headrace_storage.registry import model_names
from headrace_storage.results import commit_result
from headrace_storage.unroutable import Unroutable, messages_of, remove_message, subjects_with_jobs

# The longest a job for an unknown model waits for its answer. Each look costs the broker one request.
LOOK_EVERY_S = 2.0


async def end_unroutable_jobs(connection: Connection, clock: Clock) -> None:
    """Look for such jobs until canceled. Several workers may do so at once: a result is put once."""
    log = structlog.get_logger()
    while True:
        try:
            await _look_once(connection, clock)
        except (BrokerUnavailable, QueueFull) as error:
            log.warning("cannot look for unroutable jobs", error=str(error))
        await asyncio.sleep(LOOK_EVERY_S)


async def _look_once(connection: Connection, clock: Clock) -> None:
    known = await model_names(connection)
    for subject in await subjects_with_jobs(connection):
        address, problem = _address(subject)
        if address is not None:
            if address.model in known:
                continue
            problem = str(UnknownModel(address.model, known))
        async for message in messages_of(connection, subject):
            await _end(connection, clock, message, address, problem)


def _address(subject: str) -> tuple[JobAddress | None, str]:
    try:
        return parse_jobs_subject(subject), ""
    except InvalidName as error:
        return None, str(error)


async def _end(
    connection: Connection, clock: Clock, message: Unroutable, address: JobAddress | None, reason: str
) -> None:
    try:
        job_id = job_id_of(message.headers, message.sequence)
    except InvalidName:
        job_id = job_id_of_sequence(message.sequence)
    tenant, model = (address.tenant, address.model) if address else ("nameless", "nameless")
    await bury(
        connection,
        tenant,
        model,
        job_id,
        original_subject=message.subject,
        headers=message.headers,
        data=message.data,
        reason=reason,
        sequence=message.sequence,
    )
    if address is not None:
        encoding = _encoding_or_json(message)
        result = Result(
            id=job_id,
            model=model,
            version="",
            status=Status.FAILED,
            output=msgspec.Raw(codec.encode(None, encoding)),
            attempts=0,
            created_at=message.stored_at,
            completed_at=clock.now(),
            error=ResultError(ErrorCode.UNKNOWN_MODEL, reason, Fault.INPUT, retryable=False),
        )
        await commit_result(connection, tenant, result, encoding)
    await remove_message(connection, message.sequence)


def _encoding_or_json(message: Unroutable) -> Encoding:
    try:
        return codec.encoding_of(message.headers, message.data)
    except UndecodableMessage:
        return Encoding.JSON
