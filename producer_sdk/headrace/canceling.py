"""Cancel a job: make `canceled` its result, unless it has another, and only then stop the worker that runs it."""

from datetime import datetime

import msgspec

from headrace.job_status import activity_of
from headrace_contracts import codec
from headrace_contracts.clock import Clock
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import ErrorCode, Fault
from headrace_contracts.job import CancelRequest, Job, Scalar
from headrace_contracts.result import Result, ResultError, Status
from headrace_storage.connection import Connection
from headrace_storage.control import send_cancel
from headrace_storage.jobs import submit_cancel
from headrace_storage.results import commit_result


class Origin(msgspec.Struct, frozen=True):
    """What a result repeats of its job."""

    encoding: Encoding
    created_at: datetime
    metadata: dict[str, Scalar]

    @classmethod
    def of(cls, job: Job) -> "Origin":
        """What the result of `job` repeats."""
        return cls(job.encoding, job.created_at, job.body.metadata)


async def cancel_job(
    connection: Connection, tenant: str, model: str, job_id: str, version: str, origin: Origin, clock: Clock
) -> str:
    """End the job as `canceled`.

    Returns:
        `canceled` (it had not begun), `canceling` (its worker has been told to stop; the result is final already), or
        `already <status>`, when it had ended before.
    """
    activity = await activity_of(connection, tenant, job_id)
    result = Result(
        id=job_id,
        model=model,
        version=version,
        status=Status.CANCELED,
        output=msgspec.Raw(codec.encode(None, origin.encoding)),
        attempts=activity.attempt,
        created_at=origin.created_at,
        completed_at=clock.now(),
        error=ResultError(ErrorCode.CANCELED, "canceled by its submitter", Fault.INPUT, retryable=False),
        metadata=origin.metadata,
    )
    committed = await commit_result(connection, tenant, result, origin.encoding)
    if not committed.won:
        return f"already {committed.result.status}"
    await send_cancel(connection, tenant, model, job_id)
    return "canceling" if activity.running else "canceled"


async def request_cancel(connection: Connection, tenant: str, model: str, job_id: str, origin: Origin) -> str:
    """Have a job canceled that went through an ingress stream; returns `canceling`: it may yet end otherwise."""
    await submit_cancel(connection, tenant, model, CancelRequest(job_id, origin.metadata), origin.encoding)
    return "canceling"
