"""What is said of a job, for every reason there is: facts in, sentences out, estimates by hand arithmetic."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from headrace.cli.explain import bar_lines
from headrace.durations import duration
from headrace.explaining import Bar, Explanation, Facts, explain
from headrace.explaining.estimate import service_s, start_in_s
from headrace.explaining.facts import InQueue
from headrace.job_status import JobState
from headrace_contracts.alert import ScalingDecision, WorkerColdStart
from headrace_contracts.attempts import Attempts, Failure
from headrace_contracts.errors import ErrorCode, Fault
from headrace_contracts.event import Retrying, Started
from headrace_contracts.heartbeat import Account, ColdStart, EngineState, EngineStatus, WorkerStatus
from headrace_contracts.model import EngineKind, ModelSpec, Timeouts
from headrace_contracts.names import Lane
from headrace_contracts.result import Result, ResultError, Status, Timings
from headrace_contracts.scaling import Scaling
from headrace_contracts.tasks.registry import Task
from headrace_storage.lanes import LaneState
from headrace_storage.queue_position import IngressPosition

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
SPEC = ModelSpec("draw", Task.SYNTHETIC, EngineKind.SYNTHETIC)
LANES = tuple(
    LaneState("draw", lane, waiting, 0, 100, 30.0, 10_000, None) for lane, waiting in zip(Lane, (2, 4, 0), strict=True)
)
WAITS = InQueue(Lane.NORMAL, NOW - timedelta(seconds=12), None, 3)
HAD = InQueue(Lane.NORMAL, NOW - timedelta(seconds=12), None, None)
PLACE = "It waits in lane normal of draw since 12 s, behind 3 jobs of its lane and 2 of higher lanes."


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def facts(queued: InQueue | None = WAITS, **known: object) -> Facts:
    rest = {"model": "draw", "spec": SPEC, "lanes": LANES, **known}
    return Facts("j-1", "acme", NOW, queued=queued, **rest)  # type: ignore[arg-type]


def worker(
    name: str = "w-1",
    state: EngineState = EngineState.READY,
    running: tuple[str, ...] = (),
    held: int = 0,
    account: Account | None = None,
    slots: int = 1,
    **more: object,
) -> WorkerStatus:
    model, slot, draining, detail = (
        more.get(k, d) for k, d in (("model", "draw"), ("slot", ""), ("draining", False), ("detail", ""))
    )
    engine = EngineStatus(str(model), state, slots, running, held, str(detail), account=account or Account())
    engine = msgspec.structs.replace(engine, cold_start=more.get("cold_start", ColdStart()))
    return WorkerStatus(name, "host", 1, ago(10), ago(1), bool(draining), (engine,), str(slot))


def busy(name: str = "w-1", held: int = 0, busy_s: float = 60.0, jobs: int = 10) -> WorkerStatus:
    return worker(name, running=(f"other-{name}",), held=held, account=Account(busy_s=busy_s, jobs=jobs))


def decided(blocked: str = "", target: int = 0, reason: str = "because") -> ScalingDecision:
    return ScalingDecision("draw", ago(4), target, 0, 0, reason, blocked)


def lane(**changes: object) -> tuple[LaneState, ...]:
    return tuple(msgspec.structs.replace(one, **changes) if one.lane is Lane.NORMAL else one for one in LANES)


def spec(**scaling: int) -> ModelSpec:
    return msgspec.structs.replace(SPEC, scaling=Scaling(**scaling))


STARTED = Started("j-1", ago(7), 2, "w-1", 2)
RETRYING = Retrying("j-1", ago(3), 1, ErrorCode.MODEL_ERROR, "no ink", 5.0)

# What is known | what is said after the place, or instead of it | what to do | when it begins
WAITING: dict[str, tuple[Facts, str, str, float | None]] = {
    "no scaler": (
        facts(),
        "No worker of draw takes jobs, and none is coming: no scaler runs, so nobody starts one.",
        "`headrace worker --model draw`",
        None,
    ),
    "max is zero": (
        facts(leader="s", spec=spec(max_workers=0)),
        "none is coming: `max_workers` of the model is 0.",
        "`headrace scale draw max=1`",
        None,
    ),
    "nothing decided": (facts(leader="s"), "scaler s has decided nothing for it yet.", "", None),
    "crash loop": (
        facts(leader="s", decision=decided("crash_loop", 1, "3 starts failed: exit status 1")),
        "No worker of draw takes jobs, since its workers fail to start: 3 starts failed: exit status 1.",
        "mend what the reason names",
        None,
    ),
    "backoff": (
        facts(leader="s", decision=decided("backoff", 1, "1 start failed; one is tried 1 s after it")),
        "since its workers fail to start: 1 start failed; one is tried 1 s after it.",
        "mend what the reason names",
        None,
    ),
    "never fits": (
        facts(leader="s", decision=decided("never_fits", 1, "80 GB, the largest slot has 24 GB")),
        "it needs more than any slot has: 80 GB, the largest slot has 24 GB.",
        "`[resources]`",
        None,
    ),
    "no slot": (
        facts(
            leader="s",
            decision=decided("no_slot", 1, "all slots are taken"),
            workers=tuple(
                worker(f"h-{n}", model="hear", slot=slot) for n, slot in enumerate(("cpu", "gpu:0", "gpu:0"))
            ),
        ),
        "They have them: cpu: hear (1), gpu:0: hear (2).",
        "`headrace scale draw priority=1` gives it slots of idle workers first; `headrace scale hear min=0 max=2`",
        None,
    ),
    "no slot, of others": (
        facts(leader="s", decision=decided("no_slot", 1)),
        "No worker there says that it has one: other programs do",
        "",
        None,
    ),
    "blocked otherwise": (
        facts(leader="s", decision=decided("starting_elsewhere", 1, "two at once")),
        "none is coming: two at once [starting_elsewhere].",
        "",
        None,
    ),
    "ordered": (
        facts(leader="s", decision=decided(target=2, reason="5 jobs wait")),
        "Scaler s wants 2 workers since 4 s, and none has spoken yet: 5 jobs wait.",
        "",
        None,
    ),
    "wants none": (
        facts(leader="s", decision=decided(target=0, reason="no job")),
        "scaler s wants none: no job (at 11:59:56 UTC).",
        "see the log of s",
        None,
    ),
    "draining only": (
        facts(workers=(worker(draining=True),)),
        "No worker of draw takes jobs, and none is coming: no scaler runs",
        "`headrace worker --model draw`",
        None,
    ),
    "paused": (
        facts(lanes=lane(paused_until=NOW + timedelta(hours=1)), workers=(worker(),)),
        "Somebody paused the lane on the broker until 2026-01-02 13:00:00 UTC, for another 1 h.",
        "`nats consumer resume JOBS draw-normal`",
        None,
    ),
    "lane is full": (
        facts(lanes=lane(held=10_000), workers=(worker(),)),
        "Workers have 10000 jobs of the lane that have not ended, and the broker gives out no more at once",
        "wait for their next attempt",
        None,
    ),
    "no consumer": (
        facts(lanes=LANES[:1], workers=(worker(),)),
        "The broker has no consumer of that lane, so no worker gets its jobs.",
        "`headrace models add`",
        None,
    ),
    # 3 before it in its lane and 2 above, 1 running that is half done: 5.5 jobs of 6 s for one worker.
    "one busy worker": (
        facts(workers=(busy(),), spec=spec(max_workers=2), leader="s"),
        "1 worker of draw takes jobs, and is busy; a job takes 6 s of a worker: it begins in about 33 s.",
        "",
        33.0,
    ),
    # Two share 5 + 2 halves; 100 s for 12 jobs.
    "two busy workers at their bound": (
        facts(workers=(busy("w-1"), busy("w-2", busy_s=40.0, jobs=2)), spec=spec(max_workers=2), leader="s"),
        "a job takes 8.3 s of a worker: it begins in about 25 s.",
        "`headrace scale draw max=3` allows one more worker",
        25.0,
    ),
    "busy, and no more to be had": (
        facts(
            workers=(busy(),), spec=spec(max_workers=9), leader="s", decision=decided("no_slot", 4, "0 of 8 cores free")
        ),
        "it begins in about 33 s.",
        "the scaler cannot start more (no_slot): 0 of 8 cores free",
        33.0,
    ),
    "nothing measured": (
        facts(workers=(busy(busy_s=0.0, jobs=0),), spec=spec(max_workers=2)),
        "none has ended a job yet, so nobody can say how long one takes.",
        "no scaler runs, so nobody starts more workers: `headrace worker --model draw` starts one",
        None,
    ),
    "a free worker": (
        facts(msgspec.structs.replace(WAITS, lane=Lane.HIGH, ahead=0), workers=(worker(),)),
        "1 worker of draw takes jobs, and is idle: it begins at once.",
        "",
        0.0,
    ),
    "loading": (
        facts(workers=(worker(state=EngineState.LOADING, detail="fetching weights"),)),
        "Worker w-1 is loading the model since 10 s (fetching weights).",
        "",
        None,
    ),
    # The last start took 25 s, and this one has had 10.
    "loading, as before": (
        facts(
            workers=(worker(state=EngineState.LOADING),),
            cold_starts=tuple(WorkerColdStart("draw", "w", ago(99), 0.0, ColdStart(), s) for s in (7.0, 25.0)),
        ),
        "The last start took 25 s: it is ready in about 15 s.",
        "",
        15.0,
    ),
    "loading, with phases": (
        facts(workers=(worker(state=EngineState.LOADING, cold_start=ColdStart(spawn_s=0.3, weights_s=4.0)),)),
        "since 10 s. Done so far: spawn 300 ms, weights 4 s.",
        "",
        None,
    ),
    "recovering": (
        facts(workers=(worker(state=EngineState.RECOVERING),)),
        "Worker w-1 starts its engine again.",
        "",
        None,
    ),
    "unhealthy": (
        facts(workers=(worker(state=EngineState.UNHEALTHY, detail="no such file"),)),
        "Worker w-1 cannot start its engine and takes no jobs: no such file.",
        "mend that, and start the worker anew",
        None,
    ),
    "expires soon": (
        facts(msgspec.structs.replace(WAITS, ttl_s=60.0), leader="s"),
        "It expires in 48 s.",
        "",
        None,
    ),
    "expires before its turn": (
        facts(msgspec.structs.replace(WAITS, ttl_s=40.0), workers=(busy(),), spec=spec(max_workers=5), leader="s"),
        "It expires in 28 s, before its turn.",
        "`headrace scale draw max=...` allows more workers",
        33.0,
    ),
    "expires by its model": (
        facts(leader="s", spec=msgspec.structs.replace(SPEC, timeouts=Timeouts(queue_s=10.0))),
        "Its time in the queue, 10 s, is over: it ends as `expired` when a worker or the reaper sees it.",
        "a longer `ttl_s` lets jobs wait",
        None,
    ),
}


@pytest.mark.parametrize("case", WAITING.values(), ids=WAITING)
def test_why_a_job_waits(case: tuple[Facts, str, str, float | None]) -> None:
    known, sentence, advice, start_in = case
    explanation = explain(known)
    assert explanation.state is JobState.QUEUED
    assert explanation.sentences[0].startswith("It waits in lane ")
    assert sentence in " ".join(explanation.sentences[1:])
    assert advice in explanation.advice
    assert bool(advice) is bool(explanation.advice)
    assert explanation.start_in_s == (None if start_in is None else pytest.approx(start_in))


def test_its_place() -> None:
    assert explain(facts()).sentences[0] == PLACE
    first = msgspec.structs.replace(WAITS, lane=Lane.HIGH, ahead=1)
    assert explain(facts(first)).sentences[0] == "It waits in lane high of draw since 12 s, behind 1 job of its lane."


IN_HAND: dict[str, tuple[Facts, JobState, str, str, float | None]] = {
    "running": (
        facts(HAD, workers=(worker(running=("j-1",)),), started=STARTED, done=0.5),
        JobState.RUNNING,
        "It runs now on worker w-1 since 11:59:53 UTC (7 s ago, attempt 2), 50% done.",
        "`headrace watch j-1`",
        None,
    ),
    "running, and its events are lost": (
        facts(HAD, workers=(worker(running=("j-1",)),)),
        JobState.RUNNING,
        "It runs now on worker w-1.",
        "`headrace watch j-1`",
        None,
    ),
    "running again, and only the failure was heard of": (
        facts(HAD, workers=(worker(running=("j-1",)),), started=STARTED, retrying=RETRYING),
        JobState.RUNNING,
        "It runs now on worker w-1.",
        "`headrace watch j-1`",
        None,
    ),
    "its worker is gone": (
        facts(HAD, workers=(worker("w-2"),), started=STARTED),
        JobState.QUEUED,
        "began it at 11:59:53 UTC and is gone: the next worker that asks gets it, once its lease of 30 s is over",
        "",
        None,
    ),
    "its worker is gone and there is no other": (
        facts(HAD, started=STARTED),
        JobState.QUEUED,
        "No worker of draw takes jobs, and none is coming: no scaler runs",
        "`headrace worker --model draw`",
        None,
    ),
    "next attempt": (
        facts(HAD, workers=(worker(),), started=STARTED, retrying=RETRYING),
        JobState.QUEUED,
        "It waits for its next attempt, in 2 s. Attempt 1 of 3 failed at 11:59:57 UTC: no ink [model_error].",
        "",
        2.0,
    ),
    "next attempt is due": (
        facts(HAD, workers=(worker(),), started=STARTED, retrying=msgspec.structs.replace(RETRYING, delay_s=1.0)),
        JobState.QUEUED,
        "Its next attempt is due since 2 s: the next free worker takes it.",
        "",
        None,
    ),
    "next attempt, and nobody for it": (
        facts(HAD, leader="s", spec=spec(max_workers=0), started=STARTED, retrying=RETRYING),
        JobState.QUEUED,
        "`max_workers` of the model is 0.",
        "`headrace scale draw max=1`",
        None,
    ),
    "in hand": (
        facts(HAD, workers=(busy(held=1),)),
        JobState.QUEUED,
        "Worker w-1 has it in hand: it begins when the engine is done with the job before.",
        "",
        None,
    ),
    "in hand of a worker that loads": (
        facts(HAD, workers=(worker(state=EngineState.LOADING, held=1), busy("w-2", held=1))),
        JobState.QUEUED,
        "One of the workers w-1, w-2 has it in hand: its engine is not ready yet.",
        "",
        None,
    ),
    "no trace": (
        facts(
            HAD,
            workers=(worker(),),
            attempts=Attempts((Failure(ErrorCode.ENGINE_CRASHED, "segmentation fault", "w-9", 1),)),
        ),
        JobState.QUEUED,
        "It has used 1 of 3 attempts; the last failed on w-9: segmentation fault [engine_crashed].",
        "",
        None,
    ),
    "unknown model": (
        facts(HAD, spec=None),
        JobState.QUEUED,
        "Model draw is not in the registry: the job ends as `unknown_model`",
        "`headrace models add`",
        None,
    ),
    "in the ingress stream, nobody forwards": (
        facts(None, ingress=IngressPosition("draw", 4)),
        JobState.QUEUED,
        "It waits in the ingress stream of tenant acme, behind 4 messages",
        "start a worker: `headrace worker --model draw`",
        None,
    ),
    "in the ingress stream, the queue is full": (
        facts(None, ingress=IngressPosition("draw", 4), workers=(worker(),)),
        JobState.QUEUED,
        "one message after the other, as long as the queue takes them.",
        "`headrace doctor`",
        None,
    ),
    "no such job": (
        facts(None),
        JobState.UNKNOWN,
        "There is no job j-1 of tenant acme, and no result of one.",
        "check the id",
        None,
    ),
}


@pytest.mark.parametrize("case", IN_HAND.values(), ids=IN_HAND)
def test_who_has_a_job(case: tuple[Facts, JobState, str, str, float | None]) -> None:
    known, state, sentence, advice, start_in = case
    explanation = explain(known)
    assert explanation.state is state
    assert sentence in " ".join(explanation.sentences)
    assert advice in explanation.advice
    assert bool(advice) is bool(explanation.advice)
    assert explanation.start_in_s == start_in


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
