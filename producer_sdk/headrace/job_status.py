"""Where a job is: told from its result, its events and the queue, in this order.

The result is certain. Events are kept in the broker's memory: a job whose events are lost counts as queued while it
runs, since its message stays in the queue until it has ended. One whose worker died without a word counts as running
until it is delivered again.
"""

from enum import StrEnum

import msgspec

from headrace.results import JobResult, OpenBlobs
from headrace_contracts.errors import BrokerForbidden
from headrace_contracts.event import Progress, Retrying, Started
from headrace_contracts.result import Result
from headrace_storage.connection import Connection
from headrace_storage.events import last_event
from headrace_storage.lookup import find_job
from headrace_storage.results import get_result


class JobState(StrEnum):
    """The states of a job; from SUCCEEDED to EXPIRED they are its ends."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    """No trace of it: it was never submitted, or ended long ago."""


class JobStatus(msgspec.Struct, frozen=True):
    """What is known of a job now."""

    id: str
    model: str
    state: JobState
    attempt: int = 0
    """The attempt that runs or ran last, from 1; 0 if none did."""
    worker: str | None = None
    done: float | None = None
    """How much of the running attempt is done, 0 to 1; None if it did not say."""
    last_failure: str | None = None
    """Why the attempt before had to be repeated."""
    result: JobResult | None = None
    """Set once the job has ended."""


class Activity(msgspec.Struct, frozen=True):
    """What a job's events say."""

    running: bool = False
    attempt: int = 0
    worker: str | None = None
    done: float | None = None
    last_failure: str | None = None


async def status_of(
    connection: Connection, tenant: str, model: str, job_id: str, open_blobs: OpenBlobs, submitted: bool = False
) -> JobStatus:
    """The state of a job; `submitted` says that the broker is known to have accepted it.

    Raises:
        BrokerForbidden: it could only be in the queue, and this role may not look there.
        BrokerUnavailable: no answer.
    """
    result = await get_result(connection, tenant, model, job_id)
    if result is None:
        activity = await activity_of(connection, tenant, job_id)
        if activity.running:
            return _unfinished(job_id, model, JobState.RUNNING, activity)
        if await _in_queue(connection, tenant, job_id, model, submitted):
            return _unfinished(job_id, model, JobState.QUEUED, activity)
        # It may have ended while we looked: its result is there before its message is gone.
        result = await get_result(connection, tenant, model, job_id)
        if result is None:
            return _unfinished(job_id, model, JobState.UNKNOWN, activity)
    return _ended(result, open_blobs)


async def _in_queue(connection: Connection, tenant: str, job_id: str, model: str, submitted: bool) -> bool:
    try:
        return await find_job(connection, tenant, job_id, model) is not None
    except BrokerForbidden:
        if not submitted:
            raise
    # It may have ended while we looked.
    return await get_result(connection, tenant, model, job_id) is None


async def activity_of(connection: Connection, tenant: str, job_id: str) -> Activity:
    """Whether an attempt of the job runs, as far as its newest events tell."""
    started = await last_event(connection, tenant, job_id, "started")
    if started is None or not isinstance(started.event, Started):
        return Activity()
    retrying = await last_event(connection, tenant, job_id, "retrying")
    failure = retrying.event.message if retrying is not None and isinstance(retrying.event, Retrying) else None
    if retrying is not None and retrying.sequence > started.sequence:
        return Activity(False, started.event.attempt, None, None, failure)
    progress = await last_event(connection, tenant, job_id, "progress")
    done = None
    if progress is not None and isinstance(progress.event, Progress) and progress.sequence > started.sequence:
        done = progress.event.step / progress.event.total if progress.event.total > 0 else None
    return Activity(True, started.event.attempt, started.event.worker, done, failure)


def _unfinished(job_id: str, model: str, state: JobState, activity: Activity) -> JobStatus:
    return JobStatus(
        job_id, model, state, activity.attempt, activity.worker, activity.done, activity.last_failure, None
    )


def _ended(result: Result, open_blobs: OpenBlobs) -> JobStatus:
    state = JobState(result.status.value)
    return JobStatus(
        result.id, result.model, state, result.attempts, result.worker, result=JobResult(result, open_blobs)
    )
