"""How many workers the work of a model wants, before anything is damped, bounded or shared."""

import math

import msgspec

from headrace_scaler.policy.observation import ModelView
from headrace_scaler.policy.state import ModelState

MOST_WORKERS = 10_000
"""More than anyone has: what absurd settings lead to ends here."""


class Demand(msgspec.Struct, frozen=True):
    """Workers that the work wants."""

    jobs: int
    """Waiting and held."""
    workers: int
    """Before `min_workers` and `max_workers`."""
    reason: str


def demand_of(view: ModelView, state: ModelState) -> Demand:
    """Workers for what waits and what is held; 0 without any work."""
    waiting, held = max(0, view.waiting), max(0, view.held)
    jobs = waiting + held
    said = f"{waiting} waiting, {held} held"
    if view.paused:
        return Demand(0, 0, f"{said}, and every lane is paused")
    if not jobs:
        return Demand(0, 0, said)
    scaling = view.scaling
    workers, why = _by_wait(view, state, jobs) if scaling.target_wait_s > 0 else _by_jobs(view, jobs)
    reason = f"{said}{why}"
    if scaling.buffer_workers:
        workers += scaling.buffer_workers
        reason += f", and {scaling.buffer_workers} as a buffer"
    return Demand(jobs, min(workers, MOST_WORKERS), reason)


def _by_jobs(view: ModelView, jobs: int) -> tuple[int, str]:
    """Each worker has its number of jobs, less what is left for bursts."""
    share = view.scaling.target_utilization
    jobs_each = _jobs_each(view)
    workers = _workers(jobs, jobs_each * share)
    return workers, f": {workers} at {jobs_each:g} jobs each" + (f" and {share:.0%}" if share < 1 else "")


def _by_wait(view: ModelView, state: ModelState, jobs: int) -> tuple[int, str]:
    """As many as start what waits within the time that is aimed at, and as keep up with what arrives."""
    scaling, service_s = view.scaling, view.service_s
    # Beyond a place for each job no worker shortens any wait.
    places = _workers(jobs, _jobs_each(view))
    if service_s is None or not 0 < service_s < math.inf:
        if view.waiting > 0 and view.oldest_wait_s > scaling.target_wait_s:
            return places, f", over {scaling.target_wait_s:g} s and no service time known: {places}, one place each"
        return 1, ": 1, to measure the service time"
    catch_up = min(places, _workers(view.waiting * service_s, scaling.target_wait_s))
    keep_up = _workers(state.arrival_rate * service_s, scaling.target_utilization)
    # A worker that shares its engine among few jobs is longer busy with each: the time alone would ask for ever more.
    most = _workers(jobs, _jobs_each(view) * scaling.target_utilization)
    return min(most, max(1, catch_up, keep_up)), (
        f", {state.arrival_rate:.3g} jobs/s, {service_s:.3g} s each: {catch_up} to start them within "
        f"{scaling.target_wait_s:g} s, {keep_up} to keep up at {scaling.target_utilization:.0%}"
    )


def averaged_rate(view: ModelView, state: ModelState, now: float) -> float:
    """The arrival rate as a mean over the longer of `target_wait_s` and `scale_down_delay_s`.

    A burst is no lasting demand, and chance makes a rate over a short time go up and down by much: both would start
    workers that soon leave. What a mean is too slow for is seen by what waits. It starts at 0.
    """
    observed = view.arrival_rate if math.isfinite(view.arrival_rate) and view.arrival_rate > 0 else 0.0
    scaling = view.scaling
    if state.rate_at is None or scaling.target_wait_s <= 0:
        return 0.0
    elapsed_s = max(0.0, now - state.rate_at)
    weight = 1 - math.exp(-elapsed_s / max(scaling.target_wait_s, scaling.scale_down_delay_s))
    return state.arrival_rate + (observed - state.arrival_rate) * weight


def _jobs_each(view: ModelView) -> float:
    return view.scaling.target_jobs_per_worker or max(1, view.jobs_per_worker)


def _workers(work: float, of_one: float) -> int:
    """Whole workers for some work, where one does `of_one` of it."""
    if work <= 0:
        return 0
    wanted = work / of_one if of_one > 0 else MOST_WORKERS
    # Without the small change 0.7 + 0.1 + 0.2 would be a little more than one worker.
    return math.ceil(min(wanted, MOST_WORKERS) - 1e-9)
