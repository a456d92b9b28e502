"""A month as a few stretches of time that stand for all of it: each is simulated once and counted so many times."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from headrace_scaler.plan.workload import HOUR_S, Batch, BusinessHours, Day, Workload
from headrace_scaler.simulation.run import MONDAY
from headrace_scaler.simulation.scene import Arrival
from headrace_scaler.simulation.traffic import daily

DAY_S = 24 * HOUR_S
MONTH_DAYS = 30.0


class Stretch(msgspec.Struct, frozen=True):
    """Some days, and how many of them a month has."""

    name: str
    times_a_month: float
    length_s: float
    start: datetime
    jobs: int
    arrivals: tuple[Arrival, ...]


def stretches_of(workload: Workload, model: str, seed: int) -> tuple[Stretch, ...]:
    """What is to be simulated of a month. The number of jobs is exact; chance says when they arrive."""
    generator = random.Random(seed)  # noqa: S311 - traffic, nothing secret
    arrivals = workload.arrivals
    match arrivals:
        case Day(jobs=jobs, swing=swing):
            rate = daily(1.0, swing, DAY_S)
            made = _scattered(model, jobs, 0.0, DAY_S, rate, 1 + swing, generator)
            return (Stretch("day", MONTH_DAYS, DAY_S, MONDAY, jobs, made),)
        case BusinessHours(jobs=jobs, begin_h=begin_h, end_h=end_h):
            made = _scattered(model, jobs, begin_h * HOUR_S, end_h * HOUR_S, lambda _: 1.0, 1.0, generator)
            working = Stretch("working day", MONTH_DAYS * 5 / 7, DAY_S, MONDAY, jobs, made)
            return (working, Stretch("day off", MONTH_DAYS * 2 / 7, DAY_S, MONDAY + timedelta(days=5), 0, ()))
        case Batch(jobs=jobs, every_days=every_days):
            made = tuple(Arrival(0.0, model) for _ in range(jobs))
            return (Stretch("batch", MONTH_DAYS / every_days, every_days * DAY_S, MONDAY, jobs, made),)


def _scattered(
    model: str,
    jobs: int,
    begin: float,
    end: float,
    rate: Callable[[float], float],
    most: float,
    generator: random.Random,
) -> tuple[Arrival, ...]:
    """Exactly so many independent jobs, more of them where `rate` is high: a Poisson process whose number is known."""
    moments: list[float] = []
    while len(moments) < jobs:
        at = generator.uniform(begin, end)
        if generator.random() * most < rate(at):
            moments.append(at)
    return tuple(Arrival(at, model) for at in sorted(moments))
