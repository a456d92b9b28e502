"""When jobs arrive: shapes of traffic, made from a seeded generator where chance has a part in them."""

import math
import random
from collections.abc import Callable, Iterable

from headrace_scaler.simulation.scene import Arrival


def burst(model: str, at: float, jobs: int, over_s: float = 0.0) -> tuple[Arrival, ...]:
    """So many jobs at once, or evenly over a time."""
    return tuple(Arrival(at + over_s * index / max(1, jobs), model) for index in range(jobs))


def sawtooth(model: str, period_s: float, jobs: int, until: float) -> tuple[Arrival, ...]:
    """A burst at the beginning of each period."""
    return tuple(
        arrival for index in range(math.ceil(until / period_s)) for arrival in burst(model, index * period_s, jobs)
    )


def trickle(model: str, every_s: float, until: float, start: float = 0.0) -> tuple[Arrival, ...]:
    """One job at a time, evenly."""
    return tuple(Arrival(start + index * every_s, model) for index in range(math.ceil((until - start) / every_s)))


def poisson(
    model: str, rate: Callable[[float], float], most: float, until: float, generator: random.Random
) -> tuple[Arrival, ...]:
    """Independent jobs at `rate(at)` a second, which is never above `most`."""
    arrivals = []
    at = generator.expovariate(most)
    while at < until:
        if generator.random() * most < rate(at):
            arrivals.append(Arrival(at, model))
        at += generator.expovariate(most)
    return tuple(arrivals)


def daily(mean: float, swing: float, day_s: float = 86_400.0) -> Callable[[float], float]:
    """A rate that is lowest at midnight and highest at noon: `mean` a second, give or take `swing` of it."""
    return lambda at: mean * (1 - swing * math.cos(2 * math.pi * at / day_s))


def merged(*traffics: Iterable[Arrival]) -> tuple[Arrival, ...]:
    """All of them, in the order of time."""
    return tuple(sorted((arrival for traffic in traffics for arrival in traffic), key=lambda arrival: arrival.at))
