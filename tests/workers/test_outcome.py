"""What becomes of a job, for everything that can end its attempt."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_contracts.attempts import Attempts, Failure, excused, failed, judged
from headrace_contracts.errors import (
    BlobForbidden,
    BlobMismatch,
    BlobNotFound,
    BlobUnavailable,
    BrokerUnavailable,
    ErrorCode,
    Fault,
    InvalidInput,
    MessageTooLarge,
    Permanent,
    QueueFull,
    Retryable,
)
from headrace_contracts.model import Retry
from headrace_contracts.result import Status
from headrace_workers.engine_child import End
from headrace_workers.engine_host import EngineDied
from headrace_workers.outcome import (
    CountFailure,
    CountSuspicion,
    EndAs,
    Expired,
    Forget,
    GiveBack,
    Interrupted,
    JobEnded,
    Outcome,
    Suspected,
    TryAgain,
    after_failure,
    outcome_of,
    used_up,
)

RETRY = Retry(max_attempts=3, base_delay_s=1.0, max_delay_s=10.0)
CRASH = EngineDied(End(ErrorCode.ENGINE_CRASHED, "SIGSEGV"))
NO_MEMORY = Retryable(ErrorCode.OUT_OF_MEMORY, "x", Fault.MODEL)
MODEL_ERROR = Permanent(ErrorCode.MODEL_ERROR, "x", Fault.MODEL)


def crash(delivery: int) -> Failure:
    return Failure(ErrorCode.ENGINE_CRASHED, "SIGSEGV", "w", delivery)


def record(*deliveries: int) -> Attempts:
    attempts = Attempts()
    for delivery in deliveries:
        attempts = failed(attempts, crash(delivery))
    return attempts


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (JobEnded("x"), Forget),
        (Interrupted("x"), GiveBack),
        (BlobUnavailable("k", "down"), GiveBack),
        (BrokerUnavailable("u", "down"), GiveBack),
        (QueueFull("s", "full"), GiveBack),
        (CRASH, CountFailure),
        (NO_MEMORY, CountFailure),
        (Suspected(CRASH), CountSuspicion),
        (Suspected(MODEL_ERROR), CountSuspicion),
        (BlobForbidden("k", "no"), CountFailure),
        (RuntimeError("a prompt"), CountFailure),
        (Expired(2, 1), EndAs),
        (InvalidInput("input.steps", "x"), EndAs),
        (Permanent(ErrorCode.TIMEOUT, "x", Fault.MODEL), EndAs),
        (MODEL_ERROR, EndAs),
        (BlobNotFound("k"), EndAs),
        (BlobMismatch("k", "other"), EndAs),
        (MessageTooLarge(9_000_000, 8_000_000), EndAs),
    ],
)
def test_each_error_has_its_outcome(error: Exception, kind: type[Outcome]) -> None:
    assert isinstance(outcome_of(error, RETRY), kind)


def test_an_expired_job_is_no_failure() -> None:
    outcome = outcome_of(Expired(2, 1), RETRY)
    assert isinstance(outcome, EndAs)
    assert outcome.status is Status.EXPIRED


def test_a_model_names_the_errors_that_are_worth_another_attempt() -> None:
    own = Retry(errors=(ErrorCode.MODEL_ERROR,))
    assert isinstance(outcome_of(MODEL_ERROR, own), CountFailure)
    outcome = outcome_of(NO_MEMORY, own)
    assert isinstance(outcome, EndAs)
    assert outcome.error.code is ErrorCode.OUT_OF_MEMORY
    assert isinstance(outcome_of(Suspected(NO_MEMORY), own), CountSuspicion), "innocents are never ended for others"


def test_errors_that_no_attempt_can_mend_are_no_policy() -> None:
    with pytest.raises(ValueError, match="`errors` has `invalid_input`"):
        Retry(errors=(ErrorCode.INVALID_INPUT,))


def test_the_last_attempt_ends_the_job_and_keeps_its_message() -> None:
    outcome = after_failure(record(1, 2, 3), CRASH, RETRY, random.Random(1))
    assert isinstance(outcome, EndAs)
    assert (outcome.status, outcome.error.code) == (Status.FAILED, ErrorCode.POISONED)
    assert (
        outcome.dead_reason
        == outcome.error.message
        == "gave up after 3 attempts; the last one: SIGSEGV [engine_crashed]"
    )


def test_attempts_that_are_used_up_end_a_job_before_it_runs() -> None:
    assert used_up(record(1, 2), 3) is None
    no_memory = failed(record(1, 2), Failure(ErrorCode.OUT_OF_MEMORY, "no memory", "w", 3))
    told = used_up(no_memory, 3)
    assert told is not None
    assert (told.error.code, told.dead_reason) == (ErrorCode.POISONED, told.error.message)
    assert "no memory" in told.error.message
    silent = used_up(judged(record(1, 2), 4, began=3, worker="w"), 3)
    assert silent is not None
    assert "the worker died without a word [worker_lost]" in silent.error.message
    assert silent.error.fault is Fault.WORKER
    assert used_up(excused(judged(record(1, 2), 4, began=3, worker="w"), 3), 3) is None, "it lives after all"


def test_a_job_that_no_worker_ever_begins_ends_some_day() -> None:
    never = judged(Attempts(), 100, began=None, worker="")
    ended = used_up(never, 3)
    assert ended is not None
    assert "none began it [worker_lost]" in ended.error.message


def test_what_is_not_foreseen_says_nothing_of_the_prompt() -> None:
    outcome = outcome_of(RuntimeError("a secret prompt"), RETRY)
    assert isinstance(outcome, CountFailure)
    assert "secret" not in outcome.error.message
    assert outcome.error.code is ErrorCode.INTERNAL


@given(st.sets(st.integers(1, 5)), st.sets(st.integers(1, 5)), st.integers(1, 6), st.integers(0, 2**32))
def test_attempts_are_bounded_and_delays_too(failures: set[int], excuses: set[int], delivered: int, seed: int) -> None:
    attempts = record(*(delivery for delivery in failures if delivery < delivered))
    for delivery in excuses:
        attempts = excused(attempts, delivery)
    attempts = failed(attempts, crash(delivered))
    outcome = after_failure(attempts, CRASH, RETRY, random.Random(seed))
    if isinstance(outcome, TryAgain):
        assert attempts.spent < RETRY.max_attempts
        assert 0 <= outcome.delay_s <= RETRY.max_delay_s
    else:
        assert attempts.spent >= RETRY.max_attempts
