"""What an attempt comes to: the one function that turns an exception into an outcome. Pure."""

import random

import msgspec

from headrace_contracts.attempts import Attempts, Failure
from headrace_contracts.errors import (
    BlobError,
    BlobForbidden,
    BlobMismatch,
    BlobNotFound,
    BlobUnavailable,
    BrokerUnavailable,
    ErrorCode,
    Fault,
    HeadraceError,
    JobError,
    Permanent,
    QueueFull,
    Retryable,
)
from headrace_contracts.model import Retry
from headrace_contracts.result import ResultError, Status

# How long a job rests after an outage that was not its fault; shorter hammers a store that is coming back.
OUTAGE_DELAY_S = 5.0


class JobEnded(HeadraceError):
    """The job has a terminal result already: it was finished, canceled or expired by somebody."""


class Expired(HeadraceError):
    """The job waited in the queue for longer than it wanted to."""

    def __init__(self, waited_s: float, ttl_s: float) -> None:
        super().__init__(f"waited {waited_s:.1f} s in the queue and its ttl_s is {ttl_s:g}")


class Interrupted(HeadraceError):
    """The worker is stopping, or lost its engine through no fault of this job: it goes back to the queue."""


class EndAs(msgspec.Struct, frozen=True):
    """Commit a terminal result and remove the job."""

    status: Status
    error: ResultError
    dead_reason: str | None = None
    """If given, the original message is kept in DEAD."""


class TryAgain(msgspec.Struct, frozen=True):
    """Count a failed attempt and give the job back after a delay."""

    failure: Failure
    delay_s: float


class GiveBack(msgspec.Struct, frozen=True):
    """Give the job back without counting an attempt."""

    delay_s: float


class Forget(msgspec.Struct, frozen=True):
    """The job has ended: only remove it."""


Outcome = EndAs | TryAgain | GiveBack | Forget


def outcome_of(
    error: Exception, attempts: Attempts, num_delivered: int, retry: Retry, worker: str, rng: random.Random
) -> Outcome:
    """Decide what becomes of a job whose attempt ended with `error`.

    Args:
        error: what ended it; anything unforeseen counts as a fault of ours, to be tried again.
        attempts: the record of earlier ones.
        num_delivered: which delivery this is, from 1.
        retry: the model's policy.
        worker: id of this worker, for the record.
        rng: spreads the delays, so that jobs that failed together do not come back together.
    """
    match error:
        case JobEnded():
            return Forget()
        case Expired():
            return EndAs(Status.EXPIRED, ResultError(ErrorCode.TTL_EXPIRED, str(error), Fault.PLATFORM, retryable=True))
        case Interrupted():
            return GiveBack(delay_s=0.0)
        case BlobUnavailable() | BrokerUnavailable() | QueueFull():
            return GiveBack(delay_s=OUTAGE_DELAY_S)
    failed = _as_job_error(error)
    if not failed.retryable:
        return EndAs(Status.FAILED, ResultError(failed.code, failed.message, failed.fault, retryable=False))
    spent = attempts.spent(num_delivered) + 1
    if spent >= retry.max_attempts:
        return poisoned(spent, failed)
    return TryAgain(Failure(failed.code, failed.message, worker), _delay_s(spent, retry, rng))


def poisoned(spent: int, last: JobError) -> EndAs:
    """The end of a job that used up its attempts."""
    message = f"gave up after {spent} attempts; the last one: {last.message} [{last.code}]"
    return EndAs(
        Status.FAILED, ResultError(ErrorCode.POISONED, message, last.fault, retryable=False), dead_reason=message
    )


def _as_job_error(error: Exception) -> JobError:
    match error:
        case JobError():
            return error
        case BlobNotFound():
            return Permanent(ErrorCode.BLOB_MISSING, str(error), Fault.INPUT)
        case BlobMismatch():
            return Permanent(ErrorCode.BLOB_MISMATCH, str(error), Fault.INPUT)
        case BlobForbidden():
            return Retryable(ErrorCode.BLOB_FORBIDDEN, str(error), Fault.PLATFORM)
        case BlobError():
            return Permanent(ErrorCode.INTERNAL, str(error), Fault.PLATFORM)
        case _:
            # The type only: a foreign message may quote the prompt.
            return Retryable(ErrorCode.INTERNAL, f"{type(error).__name__} in the worker", Fault.WORKER)


def _delay_s(spent: int, retry: Retry, rng: random.Random) -> float:
    """Full-jitter exponential backoff."""
    return rng.uniform(0, min(retry.max_delay_s, retry.base_delay_s * 2 ** (spent - 1)))
