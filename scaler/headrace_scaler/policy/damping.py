"""What is wanted steadily: more workers at once or after a window, fewer only late, in steps and one at a time."""

import msgspec

from headrace_contracts.scaling import Scaling
from headrace_scaler.policy.crew import Crew
from headrace_scaler.policy.demand import Demand
from headrace_scaler.policy.observation import WorkerView
from headrace_scaler.policy.schedule import Bounds
from headrace_scaler.policy.state import Level, ModelState


class Damped(msgspec.Struct, frozen=True):
    """What is wanted of a model after damping."""

    target: int
    drain: tuple[WorkerView, ...]
    """Idle workers to let go now."""
    state: ModelState
    reason: str


def damp(scaling: Scaling, before: ModelState, crew: Crew, demand: Demand, bounds: Bounds, now: float) -> Damped:
    """The number of workers that is wanted now, and which idle ones are too many."""
    wanted = min(max(demand.workers, bounds.minimum), bounds.maximum)
    # What runs at first sight was wanted before: a new scaler neither adds nor removes in haste.
    first = (Level(now, crew.capacity),)
    highs = _recorded(before.highs or first, now, wanted, scaling.scale_down_delay_s, highest=True)
    lows = _recorded(before.lows or first, now, wanted, scaling.scale_up_window_s, highest=False)
    worked = demand.jobs > 0 or crew.busy > 0
    state = msgspec.structs.replace(before, highs=highs, lows=lows, worked_at=now if worked else before.worked_at)
    up_to = max(min(level.workers for level in lows), min(wanted, 1), bounds.minimum)
    down_to, why = max(level.workers for level in highs), ""
    if up_to > crew.capacity:
        target = up_to
    elif wanted == 0 and down_to <= 1:
        target, why = _last_worker(scaling, state, crew, now)
    else:
        target = max(up_to, min(crew.capacity, down_to))
        if target > wanted:
            why = f"{wanted} not yet wanted for {scaling.scale_down_delay_s:g} s"
    if wanted > target and not why:
        why = f"{wanted} not yet wanted for {scaling.scale_up_window_s:g} s"
    target = max(min(max(target, bounds.minimum), bounds.maximum), crew.busy)
    excess = crew.staying - target
    count = _step(scaling, state, excess, crew.staying - max(bounds.maximum, crew.busy), now)
    if excess > 0 and not count:
        why = f"{excess} too many, and nobody leaves within {scaling.cooldown_s:g} s of the last change"
    return Damped(target, crew.spare[:count], state, why)


def cooled_down(scaling: Scaling, state: ModelState, now: float) -> bool:
    """Whether the last start or drain is `cooldown_s` ago."""
    return now - max(state.scaled_up_at, state.scaled_down_at) >= scaling.cooldown_s


def _last_worker(scaling: Scaling, state: ModelState, crew: Crew, now: float) -> tuple[int, str]:
    """0 once there was no work for `idle_timeout_s`, until then one of those that are there."""
    if not crew.capacity:
        return 0, ""
    quiet_since = max(state.worked_at, crew.idle_since)
    if not crew.starting and now - quiet_since >= scaling.idle_timeout_s:
        return 0, f"no work for {scaling.idle_timeout_s:g} s"
    return min(1, crew.capacity), f"the last one stays for {scaling.idle_timeout_s:g} s without work"


def _step(scaling: Scaling, state: ModelState, excess: int, over_most: int, now: float) -> int:
    """How many of those that are too many may go now; those above `max_workers` go at once."""
    if excess <= 0:
        return 0
    step = scaling.scale_down_step or (excess + 1) // 2
    damped = min(step, excess) if cooled_down(scaling, state, now) else 0
    return max(damped, over_most, 0)


def _recorded(
    levels: tuple[Level, ...], now: float, workers: int, span_s: float, *, highest: bool
) -> tuple[Level, ...]:
    """Add what is wanted now, and keep the levels of the last `span_s` that can still become the highest (lowest)."""
    # The last one was wanted until just now.
    kept = [*levels[:-1], Level(now, levels[-1].workers)]
    while kept and (kept[-1].workers <= workers if highest else kept[-1].workers >= workers):
        kept.pop()
    kept = [level for level in kept if now - level.until < span_s]
    return (*kept, Level(now, workers))
