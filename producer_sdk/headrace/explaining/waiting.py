"""A job that no worker has had yet: what is before it, who is there for it, and what stands in the way. Pure.

The rules are asked in order; the first that applies explains the wait.
"""

from collections.abc import Callable

import msgspec

from headrace.durations import duration
from headrace.explaining.cold_start import phases_text
from headrace.explaining.estimate import service_s, start_in_s
from headrace.explaining.facts import Explanation, Facts, lane_of
from headrace.explaining.no_worker import no_worker
from headrace.job_status import JobState
from headrace.worker_phase import engines_of, phase_of
from headrace_contracts.heartbeat import EngineState, EngineStatus, WorkerPhase, WorkerStatus
from headrace_contracts.names import Lane

# A job that expires sooner is told so, whatever is before it.
EXPIRES_SOON_S = 60.0

Rule = Callable[[Facts], Explanation | None]


def waiting(facts: Facts) -> Explanation:
    """Its place, the reason for the wait, and when it would expire."""
    reason = next(found for rule in _RULES if (found := rule(facts)) is not None)
    expiry, too_late = _expiry(facts, reason.start_in_s)
    advice = reason.advice
    if too_late and not advice:
        advice = f"`headrace scale {facts.model} max=...` allows more workers; a longer `ttl_s` lets jobs wait"
    return msgspec.structs.replace(reason, sentences=(_place(facts), *reason.sentences, *expiry), advice=advice)


def _said(*sentences: str, advice: str = "", start_in: float | None = None) -> Explanation:
    return Explanation(JobState.QUEUED, sentences, advice, start_in)


def _place(facts: Facts) -> str:
    assert facts.queued is not None
    queued = facts.queued
    waited = duration(max(0.0, (facts.now - queued.created_at).total_seconds()))
    of_lane, higher = _before(facts)
    behind = f"behind {of_lane} job{'' if of_lane == 1 else 's'} of its lane"
    if queued.lane is not Lane.HIGH:
        behind += f" and {higher} of higher lanes"
    return f"It waits in lane {queued.lane} of {facts.model} since {waited}, {behind}."


def _before(facts: Facts) -> tuple[int, int]:
    """Jobs before it: of its lane, and of higher lanes, which are served first nearly always."""
    assert facts.queued is not None
    higher = list(Lane)[: list(Lane).index(facts.queued.lane)]
    return facts.queued.ahead or 0, sum(lane.waiting for lane in facts.lanes if lane.lane in higher)


def _no_consumer(facts: Facts) -> Explanation | None:
    if lane_of(facts) is not None:
        return None
    return _said(
        "The broker has no consumer of that lane, so no worker gets its jobs.",
        advice="any worker's reaper makes it anew, and so does `headrace models add` with the model's file",
    )


def _paused(facts: Facts) -> Explanation | None:
    lane = lane_of(facts)
    if lane is None or lane.paused_until is None:
        return None
    left_s = max(0.0, (lane.paused_until - facts.now).total_seconds())
    until = f"{lane.paused_until:%Y-%m-%d %H:%M:%S} UTC"
    return _said(
        f"Somebody paused the lane on the broker until {until}, for another {duration(left_s)}.",
        advice=f"`nats consumer resume JOBS {lane.model}-{lane.lane}` ends the pause",
    )


def _lane_full(facts: Facts) -> Explanation | None:
    lane = lane_of(facts)
    if lane is None or not 0 < lane.most_held <= lane.held:
        return None
    return _said(
        f"Workers have {lane.held} jobs of the lane that have not ended, and the broker gives out no more at once "
        "(`max_ack_pending`).",
        advice="many jobs wait for their next attempt: `headrace top` and the workers' logs say why they fail",
    )


def _of_phase(facts: Facts, *phases: WorkerPhase) -> list[tuple[WorkerStatus, EngineStatus]]:
    return [(w, e) for w, e in engines_of(facts.model, facts.workers) if phase_of(w, e) in phases]


def _workers_ready(facts: Facts) -> Explanation | None:
    ready = _of_phase(facts, WorkerPhase.IDLE, WorkerPhase.BUSY)
    if not ready:
        return None
    engines = [engine for _, engine in ready]
    each_s = service_s([engine for _, engine in engines_of(facts.model, facts.workers)])
    start_in = start_in_s(sum(_before(facts)), engines, each_s)
    busy = sum(phase_of(worker, engine) is WorkerPhase.BUSY for worker, engine in ready)
    work = f"{len(ready)} workers of {facts.model} take jobs, {busy} of them busy"
    if len(ready) == 1:
        work = f"1 worker of {facts.model} takes jobs, and is {'busy' if busy else 'idle'}"
    if start_in is None:
        return _said(
            f"{work}; none has ended a job yet, so nobody can say how long one takes.", advice=_more(facts, busy)
        )
    if start_in == 0.0:
        return _said(f"{work}: it begins at once.", start_in=0.0)
    speed = f"a job takes {duration(each_s)} of a worker" if each_s is not None else ""
    return _said(
        f"{work}; {speed}: it begins in about {duration(start_in)}.", advice=_more(facts, busy), start_in=start_in
    )


def _more(facts: Facts, busy: int) -> str:
    """How to get more workers, where there may not be more."""
    assert facts.spec is not None
    most = facts.spec.scaling.max_workers
    if facts.decision is not None and facts.decision.blocked and facts.leader is not None:
        blocked = facts.decision.blocked
        if blocked != "max_workers":
            return f"the scaler cannot start more ({blocked}): {facts.decision.reason}"
    if not busy:
        return ""
    if facts.leader is None:
        return f"no scaler runs, so nobody starts more workers: `headrace worker --model {facts.model}` starts one"
    there = sum(1 for _ in engines_of(facts.model, facts.workers))
    return f"`headrace scale {facts.model} max={most + 1}` allows one more worker" if there >= most else ""


def _loading(facts: Facts) -> Explanation | None:
    starting = _of_phase(facts, WorkerPhase.STARTING)
    if not starting:
        return None
    worker, engine = max(starting, key=lambda pair: facts.now - pair[0].started_at)
    elapsed_s = max(0.0, (facts.now - worker.started_at).total_seconds())
    doing = f" ({engine.detail})" if engine.detail else ""
    said = f"Worker {worker.id} is loading the model since {duration(elapsed_s)}{doing}."
    if engine.state is EngineState.RECOVERING:
        said = f"Worker {worker.id} starts its engine again{doing}."
    elif done := phases_text(engine.cold_start):
        said += f" Done so far: {done}."
    if not facts.cold_starts:
        return _said(said)
    usual_s = facts.cold_starts[-1].ready_s
    left_s = max(0.0, usual_s - elapsed_s)
    return _said(
        said, f"The last start took {duration(usual_s)}: it is ready in about {duration(left_s)}.", start_in=left_s
    )


def _unhealthy(facts: Facts) -> Explanation | None:
    sick = _of_phase(facts, WorkerPhase.UNHEALTHY)
    if not sick:
        return None
    worker, engine = sick[0]
    return _said(
        f"Worker {worker.id} cannot start its engine and takes no jobs: {engine.detail or 'it did not say why'}.",
        advice="mend that, and start the worker anew; its log has the engine's last words",
    )


def _expiry(facts: Facts, start_in: float | None) -> tuple[tuple[str, ...], bool]:
    """When it ends as `expired`, if that is soon or before its turn; and whether it will."""
    assert facts.queued is not None
    assert facts.spec is not None
    ttl_s = facts.queued.ttl_s or facts.spec.timeouts.queue_s
    left_s = ttl_s - (facts.now - facts.queued.created_at).total_seconds()
    if left_s <= 0:
        over = f"Its time in the queue, {duration(ttl_s)}, is over"
        return (f"{over}: it ends as `expired` when a worker or the reaper sees it.",), True
    if start_in is not None and left_s < start_in:
        return (f"It expires in {duration(left_s)}, before its turn.",), True
    return ((f"It expires in {duration(left_s)}.",) if left_s <= EXPIRES_SOON_S else ()), False


_RULES: tuple[Rule, ...] = (
    _no_consumer,
    _paused,
    _lane_full,
    _workers_ready,
    _loading,
    _unhealthy,
    no_worker,
)
