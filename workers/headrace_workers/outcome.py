"""What an attempt comes to: the functions that turn an exception into an outcome. Pure."""

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
    MessageTooLarge,
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


class Suspected(HeadraceError):
    """The engine ended while it ran several jobs, and this was one of them. `error` is what it ended of."""

    def __init__(self, error: JobError) -> None:
        self.error = error
        super().__init__(f"{error.message}, while it ran several jobs: this one runs again alone")


class EndAs(msgspec.Struct, frozen=True):
    """Commit a terminal result and remove the job."""

    status: Status
    error: ResultError
    dead_reason: str | None = None
    """If given, the original message is kept in DEAD."""


class CountFailure(msgspec.Struct, frozen=True):
    """Record a failed attempt; `after_failure` says what follows from the whole record."""

    error: JobError


class CountSuspicion(msgspec.Struct, frozen=True):
    """Record that the engine was lost and several jobs may have done it; the job comes back to run alone."""

    error: JobError
    message: str


class GiveBack(msgspec.Struct, frozen=True):
    """Give the job back without counting an attempt."""

    delay_s: float


class Forget(msgspec.Struct, frozen=True):
    """The job has ended: only remove it."""


class TryAgain(msgspec.Struct, frozen=True):
    """A failed attempt was counted: give the job back after a delay."""

    delay_s: float


Outcome = EndAs | CountFailure | CountSuspicion | GiveBack | Forget


def outcome_of(error: Exception, retry: Retry) -> Outcome:
    """Decide what becomes of a job whose attempt ended with `error`.

    Args:
        error: what ended it; anything unforeseen counts as a fault of ours, to be tried again.
        retry: the model's policy.
    """
    match error:
        case JobEnded():
            return Forget()
        case Expired():
            return EndAs(Status.EXPIRED, ResultError(ErrorCode.TTL_EXPIRED, str(error), Fault.PLATFORM, retryable=True))
        case Interrupted():
            return GiveBack(delay_s=0.0)
        case Suspected():
            return CountSuspicion(error.error, str(error))
        case BlobUnavailable() | BrokerUnavailable() | QueueFull():
            return GiveBack(delay_s=OUTAGE_DELAY_S)
    failed = _as_job_error(error)
    if retry.wants(failed):
        return CountFailure(failed)
    return EndAs(Status.FAILED, ResultError(failed.code, failed.message, failed.fault, retryable=False))


def after_failure(attempts: Attempts, last: JobError, retry: Retry, rng: random.Random) -> EndAs | TryAgain:
    """Decide whether a job whose attempt failed gets another one.

    Args:
        attempts: the record, the failure of this delivery included.
        last: what this attempt ended with.
        retry: the model's policy.
        rng: spreads the delays, so that jobs that failed together do not come back together.
    """
    if attempts.spent >= retry.max_attempts:
        return poisoned(attempts.spent, last.code, last.message, last.fault)
    return TryAgain(retry_delay_s(attempts.spent, retry, rng))


def retry_delay_s(spent: int, retry: Retry, rng: random.Random) -> float:
    """Full-jitter exponential backoff after `spent` attempts, from 1."""
    return rng.uniform(0, min(retry.max_delay_s, retry.base_delay_s * 2 ** (spent - 1)))


def poisoned(spent: int, code: ErrorCode, message: str, fault: Fault) -> EndAs:
    """The end of a job that used up its attempts; `code` and `message` are of the last one."""
    reason = f"gave up after {spent} attempts; the last one: {message} [{code}]"
    return EndAs(Status.FAILED, ResultError(ErrorCode.POISONED, reason, fault, retryable=False), dead_reason=reason)


def used_up(attempts: Attempts, max_attempts: int) -> EndAs | None:
    """The end of a job whose earlier attempts used up what the model allows; None if it may run."""
    if attempts.spent < max_attempts:
        return None
    last = max(attempts.failures, key=lambda failure: failure.delivery, default=None)
    if last is None or last.delivery < max(attempts.unseen, default=0):
        message = "it was sent to workers again and again, and none began it"
        return poisoned(attempts.spent, ErrorCode.WORKER_LOST, message, Fault.WORKER)
    fault = Fault.WORKER if last.code is ErrorCode.WORKER_LOST else Fault.MODEL
    return poisoned(attempts.spent, last.code, last.message, fault)


def failure_of(error: JobError, worker: str, delivery: int) -> Failure:
    """The entry of the record for an attempt that ended with `error`."""
    return Failure(error.code, error.message, worker, delivery)


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
        case MessageTooLarge():
            # Only a result can be: the job fitted. The same input would give as much again.
            message = f"the output does not fit a result: {error.size_bytes} bytes, and the broker takes less"
            return Permanent(ErrorCode.INVALID_OUTPUT, message, Fault.MODEL)
        case BlobError():
            return Permanent(ErrorCode.INTERNAL, str(error), Fault.PLATFORM)
        case _:
            # The type only: a foreign message may quote the prompt.
            return Retryable(ErrorCode.INTERNAL, f"{type(error).__name__} in the worker", Fault.WORKER)
