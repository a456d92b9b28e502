"""What is wrong with a model's queue at one moment: each alert's condition, with its numbers in a sentence.

A condition is left by a lower bound than it is entered by, so that a value at the edge raises one alert and not many.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from headrace_contracts.alert import AlertName
from headrace_contracts.heartbeat import WorkerPhase
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.policy.decision import Blocked, ModelDecision
from headrace_scaler.policy.observation import ModelView
from headrace_scaler.policy.schedule import bounds_at

# A backlog and an age are over below this share of what they fire at. Nearer to 1: alerts flap with the load.
LOWER_BOUND = 0.5

# Why workers that are wanted have no place.
NO_PLACE = {
    Blocked.MAX_WORKERS: "`max_workers` are there",
    Blocked.NO_SLOT: "no slot is left for another worker",
    Blocked.NEVER_FITS: "no slot is large enough for a worker",
}

_READY = frozenset({WorkerPhase.IDLE, WorkerPhase.BUSY})
_COMING = _READY | {WorkerPhase.STARTING}


class Judged(msgspec.Struct, frozen=True):
    """What was decided for a model, as far as alerts are concerned."""

    model: str
    target: int = 0
    """Workers wanted."""
    start: int = 0
    """Workers ordered now: they are on their way."""
    blocked: Blocked = Blocked.NONE
    reason: str = ""
    """The decision's own sentence."""
    min_workers: int | None = None
    """The bound that holds now; None: the model's own."""
    max_workers: int | None = None


def judged_of(view: ModelView, decision: ModelDecision, wall: datetime) -> Judged:
    """A decision, and the bounds that the model's schedule gives at `wall`."""
    bounds = bounds_at(view.scaling, wall)
    started = len(decision.start)
    return Judged(
        view.name, decision.target, started, decision.blocked, decision.reason, bounds.minimum, bounds.maximum
    )


class Reading(StrEnum):
    """How a condition stands."""

    HOLDS = "holds"
    BETWEEN = "between"
    """Neither: what fires goes on, what does not stays silent."""
    GONE = "gone"


class Condition(msgspec.Struct, frozen=True):
    """One alert's condition at one moment."""

    reading: Reading
    says: str
    """Why, with the numbers; without an end."""


def conditions(view: ModelView, judged: Judged, settings: ScalerSettings) -> dict[AlertName, Condition]:
    """The condition of every alert of one model."""
    workers = f"{_count(workers_there(view, judged), 'worker')} of at most {most_workers(view, judged)}"
    return {
        AlertName.BACKLOG: _above(
            view.waiting, settings.alert_backlog_jobs, f"{_jobs_wait(view.waiting)}, {{}}; {workers}"
        ),
        AlertName.OLDEST_AGE: _above(
            view.oldest_wait_s,
            settings.alert_oldest_age_s,
            f"the oldest job has waited for {view.oldest_wait_s:.1f} s, {{}}; {workers}",
        ),
        AlertName.NO_WORKER: _no_worker(view, judged),
        AlertName.CRASH_LOOP: _crash_loop(view, judged),
        AlertName.SATURATION: _saturation(view, judged, workers),
    }


def workers_there(view: ModelView, judged: Judged) -> int:
    """Workers that are ready or on their way."""
    return sum(worker.phase in _COMING for worker in view.workers) + judged.start


def most_workers(view: ModelView, judged: Judged) -> int:
    """The bound that holds."""
    return view.scaling.max_workers if judged.max_workers is None else judged.max_workers


def _above(value: float, threshold: float, says: str) -> Condition:
    """A value against its threshold; a threshold of 0 means that nobody wants to hear of it."""
    if threshold > 0 and value >= threshold:
        return Condition(Reading.HOLDS, says.format(f"{threshold:g} or more"))
    lower = threshold * LOWER_BOUND
    if value < lower or threshold == 0:
        return Condition(Reading.GONE, says.format(f"less than {lower:g}"))
    return Condition(Reading.BETWEEN, says.format(f"{lower:g} or more"))


def _no_worker(view: ModelView, judged: Judged) -> Condition:
    """Jobs wait for a worker that nobody has started. Over when one is ready: one that starts may yet fail."""
    waits = _jobs_wait(view.waiting)
    if view.waiting == 0:
        return Condition(Reading.GONE, waits)
    if view.paused:
        return Condition(Reading.GONE, f"{waits}, and every lane is paused")
    if ready := sum(worker.phase in _READY for worker in view.workers):
        return Condition(Reading.GONE, f"{waits}, and {_count(ready, 'worker')} {_is(ready)} ready")
    if coming := workers_there(view, judged):
        return Condition(Reading.BETWEEN, f"{waits}, and {_count(coming, 'worker')} {_is(coming)} starting")
    others = len(view.workers)
    besides = f" ({others} that {'drain' if others > 1 else 'drains'} or cannot start {_is(others)} there)"
    why = f": {judged.reason}" if judged.reason else ""
    return Condition(Reading.HOLDS, f"{waits}, and no worker is ready or on its way{besides if others else ''}{why}")


def _crash_loop(view: ModelView, judged: Judged) -> Condition:
    """Starts fail. Over when one has succeeded, or when no worker is wanted any more.

    A start that only waits for its time (`backoff`) is no alert, and ends none.
    """
    if judged.blocked is Blocked.CRASH_LOOP:
        why = f": {judged.reason}" if judged.reason else ""
        return Condition(Reading.HOLDS, f"workers keep failing to start{why}")
    ready = sum(worker.phase in _READY for worker in view.workers)
    starting = workers_there(view, judged) - ready
    if judged.blocked is not Blocked.BACKOFF and (ready or (judged.target == 0 and not starting)):
        now = f"{_count(ready, 'worker')} {_is(ready)} ready" if ready else "no worker is wanted"
        return Condition(Reading.GONE, now)
    return Condition(Reading.BETWEEN, "no worker has become ready since")


def _saturation(view: ModelView, judged: Judged, workers: str) -> Condition:
    waits = _jobs_wait(view.waiting)
    if view.waiting == 0 or judged.blocked not in NO_PLACE or view.paused:
        return Condition(Reading.GONE, f"{waits}; {workers}")
    return Condition(Reading.HOLDS, f"{waits}, and {NO_PLACE[judged.blocked]}; {workers}")


def _jobs_wait(count: int) -> str:
    return f"{_count(count, 'job')} {'waits' if count == 1 else 'wait'}"


def _count(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
