"""What is said of a job that waits or runs, for every reason there is: facts in, sentences out, estimates by hand."""

from datetime import timedelta

import msgspec
import pytest
from job_facts import (
    HAD,
    LANES,
    NOW,
    PLACE,
    RETRYING,
    SPEC,
    STARTED,
    WAITS,
    ago,
    busy,
    decided,
    facts,
    lane,
    spec,
    worker,
)

from headrace.explaining import Facts, explain
from headrace.job_status import JobState
from headrace_contracts.alert import WorkerColdStart
from headrace_contracts.attempts import Attempts, Failure
from headrace_contracts.errors import ErrorCode
from headrace_contracts.heartbeat import ColdStart, EngineState
from headrace_contracts.model import Timeouts
from headrace_contracts.names import Lane
from headrace_storage.queue_position import IngressPosition

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
