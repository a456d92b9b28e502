"""What becomes of a job, for everything that can end its attempt."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_contracts.attempts import Attempts, Failure
from headrace_contracts.errors import (
    BlobForbidden,
    BlobMismatch,
    BlobNotFound,
    BlobUnavailable,
    BrokerUnavailable,
    ErrorCode,
    Fault,
    InvalidInput,
    Permanent,
    QueueFull,
    Retryable,
)
from headrace_contracts.model import Retry
from headrace_contracts.result import Status
from headrace_workers.engine_host import EngineDied
from headrace_workers.outcome import (
    EndAs,
    Expired,
    Forget,
    GiveBack,
    Interrupted,
    JobEnded,
    Outcome,
    TryAgain,
    outcome_of,
)

RETRY = Retry(max_attempts=3, base_delay_s=1.0, max_delay_s=10.0)
CRASH = EngineDied(ErrorCode.ENGINE_CRASHED, "SIGSEGV")
NOTHING = Attempts()
ONE_FAILURE = Attempts((Failure(ErrorCode.ENGINE_CRASHED, "SIGSEGV", "w"),))


def decide(error: Exception, attempts: Attempts = NOTHING, num_delivered: int = 1) -> Outcome:
    return outcome_of(error, attempts, num_delivered, RETRY, "w", random.Random(1))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (JobEnded("x"), Forget),
        (Interrupted("x"), GiveBack),
        (BlobUnavailable("k", "down"), GiveBack),
        (BrokerUnavailable("u", "down"), GiveBack),
        (QueueFull("s", "full"), GiveBack),
        (CRASH, TryAgain),
        (Retryable(ErrorCode.OUT_OF_MEMORY, "x", Fault.MODEL), TryAgain),
        (BlobForbidden("k", "no"), TryAgain),
        (RuntimeError("a prompt"), TryAgain),
        (Expired(2, 1), EndAs),
        (InvalidInput("input.steps", "x"), EndAs),
        (Permanent(ErrorCode.TIMEOUT, "x", Fault.MODEL), EndAs),
        (BlobNotFound("k"), EndAs),
        (BlobMismatch("k", "other"), EndAs),
    ],
)
def test_each_error_has_its_outcome(error: Exception, kind: type[Outcome]) -> None:
    assert isinstance(decide(error), kind)


def test_an_expired_job_is_no_failure() -> None:
    outcome = decide(Expired(2, 1))
    assert isinstance(outcome, EndAs)
    assert outcome.status is Status.EXPIRED


def test_the_last_attempt_ends_the_job_and_keeps_its_message() -> None:
    two = Attempts(ONE_FAILURE.failures * 2)
    outcome = decide(CRASH, two, num_delivered=3)
    assert isinstance(outcome, EndAs)
    assert (outcome.status, outcome.error.code) == (Status.FAILED, ErrorCode.POISONED)
    assert (
        outcome.dead_reason
        == outcome.error.message
        == "gave up after 3 attempts; the last one: SIGSEGV [engine_crashed]"
    )


def test_deliveries_that_nothing_explains_are_crashes() -> None:
    """Two workers died without a word; this attempt is the third."""
    assert isinstance(decide(CRASH, Attempts(), num_delivered=3), EndAs)
    assert isinstance(decide(CRASH, Attempts(excused=2), num_delivered=3), TryAgain)


def test_what_is_not_foreseen_says_nothing_of_the_prompt() -> None:
    outcome = decide(RuntimeError("a secret prompt"))
    assert isinstance(outcome, TryAgain)
    assert "secret" not in outcome.failure.message
    assert outcome.failure.code is ErrorCode.INTERNAL


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 12), st.integers(0, 2**32))
def test_attempts_are_bounded_and_delays_too(failures: int, excused: int, delivered: int, seed: int) -> None:
    attempts = Attempts(ONE_FAILURE.failures * failures, excused)
    outcome = outcome_of(CRASH, attempts, delivered, RETRY, "w", random.Random(seed))
    spent = attempts.spent(delivered) + 1
    if isinstance(outcome, TryAgain):
        assert spent < RETRY.max_attempts
        assert 0 <= outcome.delay_s <= RETRY.max_delay_s
    else:
        assert spent >= RETRY.max_attempts
