"""Results that the reaper gives: for jobs that no worker ever ran. Pure."""

from datetime import datetime

import msgspec

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import ErrorCode, Fault, UndecodableMessage
from headrace_contracts.job import Job, JobBody, Scalar, decode_job, job_id_to_answer_under
from headrace_contracts.result import Result, ResultError, Status, Timings
from headrace_storage.reading import Stored


def refusal(message: Stored, model: str, error: ResultError, now: datetime) -> tuple[Result, Encoding]:
    """The failed result of a message that nobody will run, and the encoding to send it in."""
    encoding = codec.encoding_to_answer_in(message.headers, message.data)
    job_id = job_id_to_answer_under(message.headers, message.sequence)
    result = Result(
        id=job_id,
        model=model,
        version="",
        status=Status.FAILED,
        output=msgspec.Raw(codec.encode(None, encoding)),
        attempts=0,
        created_at=message.stored_at,
        completed_at=now,
        error=error,
    )
    return result, encoding


def expiry(message: Stored, model: str, version: str, queue_s: float, now: datetime) -> tuple[Result, Encoding]:
    """The expired result of a job that waited too long; bytes that are no job may wait as long as any job."""
    waited_s = (now - message.stored_at).total_seconds()
    ttl_s = ttl_of(message, queue_s)
    says = f"waited {waited_s:.1f} s in the queue and its ttl_s is {ttl_s:g}"
    error = ResultError(ErrorCode.TTL_EXPIRED, says, Fault.PLATFORM, retryable=True)
    result, encoding = refusal(message, model, error, now)
    job = job_or_none(message)
    metadata: dict[str, Scalar] = {} if job is None else job.body.metadata
    return msgspec.structs.replace(
        result, version=version, status=Status.EXPIRED, timings=Timings(queued_s=waited_s), metadata=metadata
    ), encoding


def ttl_of(message: Stored, queue_s: float) -> float:
    """Seconds for which a job may wait: its own `ttl_s`, else `queue_s`."""
    job = job_or_none(message)
    body: JobBody | None = None if job is None else job.body
    return queue_s if body is None or body.ttl_s is None else body.ttl_s


def job_or_none(message: Stored) -> Job | None:
    """The job in a message; None if it is none."""
    try:
        return decode_job(message.subject, message.headers, message.data, message.sequence, message.stored_at)
    except UndecodableMessage:
        return None
