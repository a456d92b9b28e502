"""Failed starts: they are counted, the next one waits longer and longer, and in a crash loop one is tried at a time."""

import msgspec

from headrace_contracts.heartbeat import WorkerPhase
from headrace_scaler.policy.decision import Blocked, Stop
from headrace_scaler.policy.observation import ModelView, WorkerView
from headrace_scaler.policy.state import Mark, Starts

OPENS_AFTER = 3
"""Failures in a row that make a crash loop. Fewer, and a machine with one bad moment is one."""
LONGEST_BACKOFF_S = 60.0
"""A model that is mended gets a worker within this; each try occupies a slot for as long as it takes to fail."""
LOAD_MARGIN_S = 60.0
"""Beyond `load_s`: the process, the libraries and the way to the broker."""
STOP_AGAIN_S = 60.0
"""A worker that is still there so long after it was ordered to end is ordered to once more."""
REMEMBERED_S = 600.0
"""A worker that was ended is reported as a failed start well within this, and must not count twice."""


class Judged(msgspec.Struct, frozen=True):
    """What follows from how the starts of a model went."""

    starts: Starts
    unfit: frozenset[str]
    """Workers that are no capacity: broken, or not ready in time."""
    stop: tuple[Stop, ...]
    allowed: int | None
    """Workers that may be started now; None: as many as are wanted."""
    blocked: Blocked
    reason: str


def judge(view: ModelView, before: Starts, now: float) -> Judged:
    """Count what failed and what succeeded since the last time, and say what may be started."""
    ours = tuple(worker for worker in view.workers if worker.ours)
    recovering = _recovering(ours, before, now)
    problems = _problems(view, recovering, now)
    counted = {mark.worker for mark in (*before.broken, *before.stopped)}
    fresh = [(worker, reason) for worker, reason in problems.items() if worker not in counted]
    fresh += [(failed.worker, failed.reason) for failed in view.failed_starts if failed.worker not in counted]
    ready = {worker.id for worker in ours if worker.phase in (WorkerPhase.IDLE, WorkerPhase.BUSY)}
    succeeded = bool(ready - {*before.ready, *view.outdated})
    ordered = {mark.worker for mark in before.stopped if now - mark.at < STOP_AGAIN_S}
    stop = tuple(
        Stop(worker.id, problems[worker.id])
        for worker in ours
        if worker.id in problems and worker.id not in ordered and worker.jobs <= 0
    )
    starts = Starts(
        failures=0 if succeeded else before.failures + len(fresh),
        rounds=0 if succeeded else before.rounds + _begins_round(before, bool(fresh)),
        failed_at=now if fresh else before.failed_at,
        tried_at=before.tried_at,
        last_reason=fresh[-1][1] if fresh else before.last_reason,
        ready=tuple(sorted(ready | {mark.worker for mark in recovering})),
        recovering=recovering,
        broken=_remembered((*before.broken, *(Mark(worker, now) for worker in problems if worker not in counted)), now),
        stopped=_remembered((*before.stopped, *(Mark(order.worker, now) for order in stop)), now),
    )
    loading = any(
        worker.phase is WorkerPhase.STARTING and worker.id not in problems and worker.id not in view.outdated
        for worker in ours
    )
    return Judged(starts, frozenset(problems), stop, *_permission(starts, loading, now))


def backoff_s(starts: Starts) -> float:
    """Shortest time from a failure to the next start: 1, 2, 4 .. 60 s; 0 without a failure."""
    return min(LONGEST_BACKOFF_S, 2.0 ** min(max(starts.rounds, 1) - 1, 10)) if starts.failures > 0 else 0.0


def start_timeout_s(view: ModelView) -> float:
    """Longest time from the order of a worker until it is ready."""
    return view.scaling.start_timeout_s or max(0.0, view.load_timeout_s) + LOAD_MARGIN_S


def _begins_round(before: Starts, failed: bool) -> bool:
    """Whether this is another failure: eight workers that were ordered together fail for one reason, not for eight."""
    return failed and (before.rounds <= 0 or before.tried_at >= before.failed_at)


def _permission(starts: Starts, loading: bool, now: float) -> tuple[int | None, Blocked, str]:
    if starts.failures <= 0:
        return None, Blocked.NONE, ""
    wait_s = backoff_s(starts)
    due = now - max(starts.failed_at, starts.tried_at) >= wait_s
    count = "1 start" if starts.failures == 1 else f"{starts.failures} starts in a row"
    reason = f"{count} failed, the last: {starts.last_reason or 'no reason given'}; one is tried {wait_s:g} s after it"
    blocked = Blocked.CRASH_LOOP if starts.failures >= OPENS_AFTER else Blocked.BACKOFF
    return (1 if due and not loading else 0), blocked, reason


def _problems(view: ModelView, recovering: tuple[Mark, ...], now: float) -> dict[str, str]:
    """Our workers that are of no use, and why."""
    loads_again = {mark.worker: mark.at for mark in recovering}
    timeout_s = start_timeout_s(view)
    problems = {}
    for worker in view.workers:
        if not worker.ours:
            continue
        if worker.phase is WorkerPhase.UNHEALTHY:
            problems[worker.id] = f"its engine cannot be started: {worker.detail or 'no detail given'}"
        started = loads_again.get(worker.id, worker.since)
        if worker.phase is WorkerPhase.STARTING and now - started > timeout_s:
            problems[worker.id] = f"it was not ready within {timeout_s:g} s of its start"
    return problems


def _recovering(ours: tuple[WorkerView, ...], before: Starts, now: float) -> tuple[Mark, ...]:
    """Workers that load though they have been ready, since when: their order is long ago and says nothing."""
    since = {mark.worker: mark.at for mark in before.recovering}
    return tuple(
        Mark(worker.id, since.get(worker.id, now))
        for worker in ours
        if worker.phase is WorkerPhase.STARTING and worker.id in before.ready
    )


def _remembered(marks: tuple[Mark, ...], now: float) -> tuple[Mark, ...]:
    """The newest of each worker, young enough to matter."""
    newest = {mark.worker: mark for mark in marks}
    return tuple(mark for mark in newest.values() if now - mark.at < REMEMBERED_S)
