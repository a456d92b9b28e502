"""A plan as text: each number with the arithmetic that leads to it, so that it can be checked by hand."""

from collections.abc import Sequence

from headrace_scaler.plan.forecast import Forecast
from headrace_scaler.plan.prices import Comparison
from headrace_scaler.plan.workload import HOUR_S, Workload


def lines_of(workload: Workload, planned: Forecast, price: str) -> list[str]:
    """What is planned."""
    holds = "holds" if planned.holds else "DOES NOT HOLD"
    unfinished = f", {planned.unfinished:,} jobs never end" if planned.unfinished else ""
    per_s = planned.price_per_s
    return [
        workload.description,
        f"jobs         {planned.jobs:,.0f} a month of 30 days",
        f"workers      {planned.mean_workers:.2f} on average, {planned.most_workers} at most",
        f"wait         p50 {_time(planned.p50_wait_s)}, p95 {_time(planned.p95_wait_s)}; asked for p95 "
        f"{_time(planned.asked_p95_wait_s)}: {holds}{unfinished}",
        f"done after   p95 {_time(planned.p95_total_s)}",
        f"busy         {planned.busy_s:,.0f} s of {planned.worker_s:,.0f} s of workers: {planned.utilization:.0%}; the "
        "rest are cold starts and idling",
        f"price        {price}",
        f"cost         {planned.worker_s:,.0f} s x ${per_s:.6g} = ${planned.cost:,.2f} a month",
        f"a job        ${planned.cost:,.2f} / {planned.jobs:,.0f} = ${planned.cost_per_job:.6f}",
    ]


def comparison_rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Provider, device, arithmetic, money and date."""
    return [
        (
            one.price.provider,
            one.price.device,
            one.price.shown,
            one.arithmetic,
            f"${one.cost:,.2f}",
            str(one.price.date),
        )
        for one in comparisons
    ]


def sources(comparisons: Sequence[Comparison]) -> list[str]:
    """Where the prices are from."""
    return [
        f"{one.price.name}: {one.price.source}" + (f" ({one.price.note})" if one.price.note else "")
        for one in comparisons
    ]


def _time(seconds: float) -> str:
    if seconds >= 2 * HOUR_S:
        return f"{seconds / HOUR_S:.1f} h"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
