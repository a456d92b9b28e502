"""What is said of a job that has ended, and the arithmetic behind estimates, bars and durations."""

from datetime import datetime

import msgspec
import pytest
from job_facts import NOW, ago, busy, worker

from headrace.cli.explain import bar_lines
from headrace.durations import duration
from headrace.explaining import Bar, Explanation, Facts, explain
from headrace.explaining.estimate import service_s, start_in_s
from headrace.job_status import JobState
from headrace_contracts.alert import WorkerColdStart
from headrace_contracts.errors import ErrorCode, Fault
from headrace_contracts.heartbeat import ColdStart, WorkerStatus
from headrace_contracts.result import Result, ResultError, Status, Timings


def ended(status: Status = Status.SUCCEEDED, **changes: object) -> Result:
    usual = Result(
        id="j-1",
        model="draw",
        version="1",
        status=status,
        output=msgspec.Raw(b"null"),
        attempts=1,
        created_at=ago(10),
        started_at=ago(4),
        completed_at=NOW,
        worker="w-1",
        timings=Timings(queued_s=1.0, load_s=5.0, fetch_s=0.5, run_s=3.0, store_s=0.25),
    )
    return msgspec.structs.replace(usual, **changes)


def of(result: Result, *cold_starts: WorkerColdStart) -> Explanation:
    return explain(Facts("j-1", "acme", NOW, "draw", result, cold_starts=cold_starts))


def error(code: ErrorCode, fault: Fault, *, retryable: bool = False) -> ResultError:
    return ResultError(code, "no ink", fault, retryable)


READY_AT = ago(4)


def cold(worker: str = "w-1", at: datetime = READY_AT) -> WorkerColdStart:
    return WorkerColdStart(
        "draw", worker, at, 0.25, ColdStart(spawn_s=0.5, load_s=4.5, first_result_s=3, forked=True), 5.9
    )


def test_where_the_time_went() -> None:
    explanation = of(ended())
    assert explanation.state is JobState.SUCCEEDED
    assert explanation.sentences == ("It succeeded at 12:00:00 UTC after 10 s, 1 attempt on worker w-1.",)
    assert explanation.bars == (
        Bar("queued", 1.0, 0.1),
        Bar("load", 5.0, 0.5),
        Bar("fetch", 0.5, 0.05),
        Bar("run", 3.0, 0.3),
        Bar("store", 0.25, 0.025),
        Bar("other", 0.25, 0.025),
    )


def test_phases_by_another_clock_never_add_up_to_more_than_all() -> None:
    bars = of(ended(timings=Timings(queued_s=10.0, run_s=10.0))).bars
    assert [(bar.phase, bar.share) for bar in bars if bar.took_s] == [("queued", 0.5), ("run", 0.5)]
    assert all(bar.share == 0 for bar in of(ended(created_at=NOW, timings=Timings())).bars)


def test_the_cold_start_that_it_waited_for() -> None:
    explanation = of(ended(), cold("w-2"), cold())
    assert explanation.sentences[1] == (
        "It waited for a cold start of worker w-1 (forked from the warm parent), ready after 5.9 s: "
        "decide 250 ms, spawn 500 ms, load 4.5 s."
    )
    assert explanation.advice == "`headrace scale draw min=1` keeps a worker ready, at its price"
    # Told when the job had begun already.
    assert len(of(ended(), cold(at=ago(3))).sentences) == 2
    # Another worker; one that was ready before the job was there; a job that waited for no load.
    for result, other in (
        (ended(), cold("w-2")),
        (ended(), cold(at=ago(11))),
        (ended(timings=Timings(queued_s=6.0, run_s=3.0)), cold()),
    ):
        assert len(of(result, other).sentences) == 1


@pytest.mark.parametrize(
    ("result", "advice"),
    [
        (ended(), "min=1"),
        (ended(timings=Timings(queued_s=6.0, run_s=3.0)), "`headrace scale draw max=...`"),
        (ended(timings=Timings(queued_s=1.0, run_s=3.0)), ""),
        (ended(timings=Timings(queued_s=0.5)), ""),
        (ended(Status.EXPIRED, error=error(ErrorCode.TTL_EXPIRED, Fault.PLATFORM)), "longer `ttl_s`"),
        (ended(Status.CANCELED, error=error(ErrorCode.CANCELED, Fault.INPUT)), ""),
        (ended(Status.FAILED, error=error(ErrorCode.POISONED, Fault.INPUT)), "`headrace dead show j-1`"),
        (ended(Status.FAILED, error=error(ErrorCode.INVALID_INPUT, Fault.INPUT)), "`headrace models show draw`"),
        (ended(Status.FAILED, error=error(ErrorCode.INTERNAL, Fault.WORKER, retryable=True)), "submit it again"),
        (ended(Status.FAILED, error=error(ErrorCode.MODEL_ERROR, Fault.MODEL)), "the log of worker w-1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_to_do_about_an_end(result: Result, advice: str) -> None:
    explanation = of(result)
    assert advice in explanation.advice
    assert bool(advice) is bool(explanation.advice)
    if result.error is not None:
        assert explanation.sentences[1] == f"Why: no ink [{result.error.code}, fault: {result.error.fault}]."


def test_bars_are_drawn_to_scale_and_none_is_lost() -> None:
    lines = bar_lines((Bar("queued", 0.0, 0.0), Bar("run", 3.0, 0.75), Bar("store", 0.001, 0.0001)))
    assert lines == [
        f"queued {'.' * 40}       0 ms    0%",
        f"run    {'#' * 30}{'.' * 10}        3 s   75%",
        f"store  #{'.' * 39}       1 ms    0%",
    ]


def test_service_time_is_what_all_workers_took() -> None:
    engines = [account.engines[0] for account in (busy(busy_s=10.0, jobs=4), busy(busy_s=20.0, jobs=1))]
    assert service_s(engines) == 6.0
    assert service_s([worker().engines[0]]) is None


@pytest.mark.parametrize(
    ("before", "workers", "each_s", "seconds"),
    [
        (0, [], 6.0, None),
        (0, [worker()], None, 0.0),
        (1, [worker()], 6.0, 6.0),
        (1, [worker(slots=2)], None, 0.0),  # two places, one job before it
        (2, [busy()], 6.0, 15.0),  # 2 and a half
        (0, [busy(held=1)], 6.0, 9.0),  # half of the one that runs, and the one held
        (3, [busy("a"), busy("b")], 6.0, 12.0),  # (3 + 1) shared by two
        (3, [busy()], None, None),
    ],
)
def test_the_estimate(before: int, workers: list[WorkerStatus], each_s: float | None, seconds: float | None) -> None:
    assert start_in_s(before, [worker.engines[0] for worker in workers], each_s) == seconds


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 ms"),
        (0.0123, "12 ms"),
        (0.9999, "1 s"),
        (1.25, "1.2 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min"),
        (245.4, "4 min 5 s"),
        (3599.7, "1 h"),
        (7500.0, "2 h 5 min"),
        (86_399.0, "1 d"),
        (90_000.0, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
