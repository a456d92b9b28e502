"""End jobs that no consumer delivers, for a model that is not in the registry or in a lane that is none.

They would wait for ever.
"""

import asyncio
import contextlib

import msgspec
import structlog

from headrace_contracts import codec
from headrace_contracts.clock import Clock
from headrace_contracts.errors import (
    BrokerUnavailable,
    ErrorCode,
    Fault,
    InvalidName,
    QueueFull,
    UndecodableMessage,
    UnknownModel,
)
from headrace_contracts.job import job_id_to_answer_under
from headrace_contracts.names import NAMELESS, is_token, parse_jobs_subject
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
        error = _why_unroutable(subject, known)
        if error is not None:
            async for message in messages_of(connection, subject):
                await _end(connection, clock, message, error)


def _why_unroutable(subject: str, known: tuple[str, ...]) -> ResultError | None:
    """What the result of a job on this subject will say; None if a consumer delivers it."""
    try:
        address = parse_jobs_subject(subject)
    except InvalidName as error:
        return ResultError(ErrorCode.INVALID_INPUT, str(error), Fault.INPUT, retryable=False)
    if address.model in known:
        return None
    return ResultError(ErrorCode.UNKNOWN_MODEL, str(UnknownModel(address.model, known)), Fault.INPUT, retryable=False)


async def _end(connection: Connection, clock: Clock, message: Unroutable, error: ResultError) -> None:
    job_id = job_id_to_answer_under(message.headers, message.sequence)
    _, tenant, model, _ = message.subject.split(".")
    addressee = (tenant, model) if is_token(tenant) and is_token(model) else None
    await bury(
        connection,
        *(addressee or (NAMELESS, NAMELESS)),
        job_id,
        original_subject=message.subject,
        headers=message.headers,
        data=message.data,
        reason=error.message,
        sequence=message.sequence,
    )
    if addressee is not None:
        encoding = codec.encoding_to_answer_in(message.headers, message.data)
        result = Result(
            id=job_id,
            model=model,
            version="",
            status=Status.FAILED,
            output=msgspec.Raw(codec.encode(None, encoding)),
            attempts=0,
            created_at=message.stored_at,
            completed_at=clock.now(),
            error=error,
        )
        # Something that is no result on the subject ends the job too.
        with contextlib.suppress(UndecodableMessage):
            await commit_result(connection, tenant, result, encoding)
    await remove_message(connection, message.sequence)
