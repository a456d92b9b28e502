"""One decision: observation and memory in, orders and memory out. It reads no clock, does nothing, never raises.

For each model: count failed starts, sort the workers, work out the demand, damp it; then share the slots among all.
"""

from datetime import datetime

import msgspec

from headrace_contracts.heartbeat import WorkerPhase
from headrace_scaler.policy.crew import Crew, crew_of
from headrace_scaler.policy.damping import Damped, cooled_down, damp
from headrace_scaler.policy.decision import Blocked, Decided, ModelDecision
from headrace_scaler.policy.demand import Demand, averaged_rate, demand_of
from headrace_scaler.policy.observation import ModelView, Observation
from headrace_scaler.policy.rollout import to_replace
from headrace_scaler.policy.schedule import Bounds, bounds_at
from headrace_scaler.policy.sharing import Claim, Share, share
from headrace_scaler.policy.starts import Judged, judge
from headrace_scaler.policy.state import Mark, ModelState, Starts, State


class _Plan(msgspec.Struct, frozen=True):
    """What one model wants, before slots are shared."""

    view: ModelView
    bounds: Bounds
    judged: Judged
    crew: Crew
    demand: Demand
    damped: Damped
    drain: tuple[str, ...]
    missing: int


def decide(observation: Observation, state: State, now: float, wall: datetime) -> Decided:
    """Decide for every model.

    Args:
        observation: of this moment, each failed start in one observation only.
        state: of the decision before; `State()` at first.
        now: seconds of the observer's monotonic clock.
        wall: the same moment as a date, aware, for schedules.
    """
    known = {model.name: model for model in state.models}
    # Names and ids are unique; were one there twice, its slots would be given away twice.
    views = {view.name: view for view in observation.models}.values()
    plans = tuple(_plan(view, known.get(view.name), now, wall) for view in views)
    shares = share(tuple(_claim(plan, now) for plan in plans), observation.slots)
    decided = tuple(_decided(plan, shares[plan.view.name], now) for plan in plans)
    return Decided(tuple(decision for decision, _ in decided), State(tuple(after for _, after in decided)))


def _plan(view: ModelView, known: ModelState | None, now: float, wall: datetime) -> _Plan:
    before = known or ModelState(view.name, version=view.version)
    if before.version != view.version:
        # Another entry is another chance, and what failed until now was the old one.
        starts = Starts(ready=before.starts.ready, stopped=before.starts.stopped)
        before = msgspec.structs.replace(before, version=view.version, starts=starts)
        view = msgspec.structs.replace(view, failed_starts=())
    rate = averaged_rate(view, before, now)
    before = msgspec.structs.replace(before, arrival_rate=rate, rate_at=now)
    judged = judge(view, before.starts, now)
    crew = crew_of(view, judged.unfit, before.leaving, now)
    bounds = bounds_at(view.scaling, wall)
    demand = demand_of(view, before)
    damped = damp(view.scaling, before, crew, demand, bounds, now)
    drain = damped.drain or to_replace(view, crew, judged, damped, now)
    missing = max(0, damped.target - crew.capacity)
    return _Plan(view, bounds, judged, crew, demand, damped, tuple(worker.id for worker in drain), missing)


def _claim(plan: _Plan, now: float) -> Claim:
    """What a model asks of the others, and what it could give them."""
    view, crew = plan.view, plan.crew
    allowed = plan.judged.allowed
    spare = tuple(worker for worker in crew.spare if worker.id not in plan.drain)
    # Held by nobody who works: they wait for their next attempt, or a worker has just taken them.
    has_work = view.waiting > 0 or (view.held > 0 and not crew.busy)
    may_give = not has_work and cooled_down(view.scaling, plan.damped.state, now)
    told = {*plan.drain, *(mark.worker for mark in crew.leaving), *(order.worker for order in plan.judged.stop)}
    return Claim(
        model=view.name,
        need=view.need,
        priority=view.scaling.priority,
        asks=plan.missing if allowed is None else min(plan.missing, allowed),
        has_worker=crew.capacity > 0,
        # A crash loop takes nobody's place: its tries run where there is room.
        waits=has_work and not view.paused and not plan.judged.starts.failures,
        oldest_wait_s=max(0.0, view.oldest_wait_s),
        spare=spare if may_give else (),
        spare_above_minimum=crew.staying - len(plan.drain) - plan.bounds.minimum,
        going=tuple(worker for worker in view.workers if worker.phase is WorkerPhase.DRAINING or worker.id in told),
        present=view.workers,
    )


def _decided(plan: _Plan, got: Share, now: float) -> tuple[ModelDecision, ModelState]:
    judged, damped = plan.judged, plan.damped
    drain = (*plan.drain, *(worker for worker, _ in got.drained_for))
    blocked, why = _blocked(plan, got)
    least = plan.bounds.minimum
    minimum = f"min_workers is {least}" if plan.demand.workers < least else ""
    parts = [plan.demand.reason, minimum, plan.bounds.note, damped.reason, judged.reason, why]
    if plan.drain and not damped.drain:
        parts.append("one of an older entry is replaced")
    parts += [f"room is made for {model}" for model in sorted({model for _, model in got.drained_for})]
    decision = ModelDecision(
        model=plan.view.name,
        target=damped.target,
        start=got.start,
        drain=drain,
        stop=judged.stop,
        reason="; ".join(part for part in parts if part),
        blocked=blocked,
    )
    starts = judged.starts
    if got.start and starts.failures:
        starts = msgspec.structs.replace(starts, tried_at=now)
    state = msgspec.structs.replace(
        damped.state,
        starts=starts,
        scaled_up_at=now if got.start else damped.state.scaled_up_at,
        scaled_down_at=now if drain else damped.state.scaled_down_at,
        leaving=(*plan.crew.leaving, *(Mark(worker, now) for worker in drain)),
    )
    return decision, state


def _blocked(plan: _Plan, got: Share) -> tuple[Blocked, str]:
    """The first of the things that stand in the way."""
    view, bounds, demand = plan.view, plan.bounds, plan.demand
    if view.paused and view.waiting > 0:
        return Blocked.PAUSED, ""
    if got.blocked is Blocked.NEVER_FITS:
        return got.blocked, got.reason
    # A try that is under way is no success yet.
    if plan.judged.blocked and plan.damped.target > plan.crew.capacity - plan.crew.starting:
        return plan.judged.blocked, got.reason
    if got.blocked:
        return got.blocked, got.reason
    if demand.workers > bounds.maximum:
        return Blocked.MAX_WORKERS, f"{demand.workers} wanted, and max_workers is {bounds.maximum}"
    return Blocked.NONE, ""
