"""Rule: end jobs that no consumer delivers, for a model that is not in the registry or in a lane that is none.

They would wait for ever. What was sent is kept in DEAD, and the job fails.
"""

import contextlib
from collections.abc import Iterable

from headrace_contracts.errors import ErrorCode, Fault, InvalidName, UndecodableMessage, UnknownModel
from headrace_contracts.job import job_id_to_answer_under
from headrace_contracts.names import NAMELESS, Stream, is_token, parse_jobs_subject
from headrace_contracts.result import ResultError
from headrace_storage.dead import bury
from headrace_storage.jobs import remove_job
from headrace_storage.reading import Stored, next_batch
from headrace_storage.reaper.answers import refusal
from headrace_storage.reaper.duty import Act, Duty, Rule
from headrace_storage.reaper.survey import Survey
from headrace_storage.results import commit_result


def why_unroutable(subject: str, known: Iterable[str]) -> ResultError | None:
    """What the result of a job on this subject will say; None if a consumer delivers it. Pure."""
    try:
        address = parse_jobs_subject(subject)
    except InvalidName as error:
        return ResultError(ErrorCode.INVALID_INPUT, str(error), Fault.INPUT, retryable=False)
    names = tuple(sorted(known))
    if address.model in names:
        return None
    return ResultError(ErrorCode.UNKNOWN_MODEL, str(UnknownModel(address.model, names)), Fault.INPUT, retryable=False)


async def end_unroutable(duty: Duty, survey: Survey) -> None:
    """End all such jobs of the survey.

    Raises:
        QueueFull: DEAD or RESULTS takes nothing; the jobs stay.
        BrokerUnavailable: no answer.
    """
    for subject in survey.subjects:
        error = why_unroutable(subject, survey.models)
        if error is not None:
            await _end_all(duty, subject, error, survey.last_sequence)


async def _end_all(duty: Duty, subject: str, error: ResultError, last_sequence: int) -> None:
    """Up to `last_sequence`: a model may have been added since, and later jobs are for it."""

    async def end(message: Stored) -> None:
        await _end(duty, message, error)

    sequence = 1
    while 0 < sequence <= last_sequence:
        batch = await next_batch(duty.connection, Stream.JOBS, subject, sequence)
        await duty.each(
            Rule.UNROUTABLE, [message for message in batch.messages if message.sequence <= last_sequence], end
        )
        sequence = batch.next_sequence


async def _end(duty: Duty, message: Stored, error: ResultError) -> None:
    job_id = job_id_to_answer_under(message.headers, message.sequence)
    _, tenant, model, _ = message.subject.split(".")
    addressee = (tenant, model) if is_token(tenant) and is_token(model) else None
    await bury(
        duty.connection,
        *(addressee or (NAMELESS, NAMELESS)),
        job_id,
        original_subject=message.subject,
        headers=message.headers,
        data=message.data,
        reason=error.message,
        sequence=message.sequence,
    )
    if addressee is not None:
        # Something that is no result on the subject ends the job too.
        with contextlib.suppress(UndecodableMessage):
            await commit_result(duty.connection, tenant, *refusal(message, model, error, duty.clock.now()))
    await remove_job(duty.connection, message.sequence)
    duty.tell(Act(Rule.UNROUTABLE, message.subject, f"job {job_id} failed: {error.code}"))
