"""The cheapest settings that hold: one setting after the other is tried, and the best value kept."""

import itertools
from collections.abc import Callable, Iterator

import msgspec

from headrace_contracts.scaling import Scaling
from headrace_scaler.plan.forecast import Forecast
from headrace_scaler.plan.workload import Workload

ROUNDS = 2


def find(workload: Workload, run: Callable[[Workload], Forecast], most_tries: int) -> tuple[list[Forecast], Forecast]:
    """Try settings around those of the load, as they are first.

    It is no search of everything: settings that only help together may be missed.

    Args:
        workload: with the settings to begin with.
        run: simulates one.
        most_tries: simulations at most.

    Returns:
        All that were tried, and the best: the cheapest of those that hold, else the one that waits the least.
    """
    tried = {workload.scaling: run(workload)}
    best = tried[workload.scaling]
    for _ in range(ROUNDS):
        before = best
        for name in _steps(workload):
            for value in _steps(workload)[name]:
                scaling = _with(best.scaling, name, value)
                if scaling is None or scaling in tried:
                    continue
                if len(tried) >= most_tries:
                    return list(tried.values()), best
                tried[scaling] = run(msgspec.structs.replace(workload, scaling=scaling))
                best = min(best, tried[scaling], key=_rank)
        if best is before:
            break
    return list(tried.values()), best


def _steps(workload: Workload) -> dict[str, tuple[float, ...]]:
    """Settings and what is tried for each, what matters most first."""
    wait_s, each = workload.p95_wait_s, workload.jobs_per_worker
    return {
        "min_workers": (0, 1, 2),
        "target_wait_s": (0.0, wait_s / 4, wait_s / 2, wait_s),
        "target_utilization": (0.5, 0.7, 0.85, 1.0),
        "target_jobs_per_worker": tuple(sorted({0.0, each / 2, each * 2.0})),
        "buffer_workers": (0, 1, 2),
        "idle_timeout_s": (30.0, 120.0, 600.0),
        "scale_down_delay_s": (15.0, 60.0, 300.0),
    }


def _with(scaling: Scaling, name: str, value: float) -> Scaling | None:
    if name == "min_workers" and value > scaling.max_workers:
        return None
    return msgspec.structs.replace(scaling, **{name: value})


def _rank(one: Forecast) -> tuple[bool, float, float]:
    if one.holds:
        return (False, one.cost, one.p95_wait_s)
    return (True, float(one.unfinished), one.p95_wait_s)


def changed(scaling: Scaling, before: Scaling) -> Iterator[str]:
    """The settings that differ, as TOML."""
    for name, now, then in itertools.zip_longest(
        Scaling.__struct_fields__, msgspec.structs.astuple(scaling), msgspec.structs.astuple(before)
    ):
        if now != then:
            yield f"{name} = {now:g}"
