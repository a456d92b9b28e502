"""List prices of others, with date and source, and what a load costs at each, with the arithmetic."""

import tomllib
from datetime import date
from enum import StrEnum
from pathlib import Path

import msgspec

from headrace_contracts.errors import InvalidSpec
from headrace_scaler.plan.forecast import Forecast
from headrace_scaler.plan.stretches import MONTH_DAYS
from headrace_scaler.plan.workload import HOUR_S, Day, Workload

PRICES = Path(__file__).parent / "prices.toml"


class Bills(StrEnum):
    """What is paid for."""

    BUSY = "busy"
    """Only the time in which jobs run."""
    UPTIME = "uptime"
    """All the time of a worker, cold starts and idling included."""
    FEE = "fee"
    """So much for each hour of a worker, beside the price of the worker itself."""


class ListPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One price, in US dollars."""

    name: str
    provider: str
    gpu: str
    """What it is compared for: `a100`, `a10g`; `any` for a fee."""
    device: str
    """As the provider calls it."""
    bills: Bills
    source: str
    date: date
    """When the price was read there, or was said to hold."""
    price_per_s: float = 0.0
    price_per_h: float = 0.0
    note: str = ""

    def __post_init__(self) -> None:
        if (self.price_per_s > 0) == (self.price_per_h > 0):
            raise ValueError(f"`{self.name}` needs one of `price_per_s` and `price_per_h`, above 0")

    @property
    def a_second(self) -> float:
        """Dollars per second."""
        return self.price_per_s or self.price_per_h / HOUR_S

    @property
    def shown(self) -> str:
        """As its source has it."""
        return f"${self.price_per_s:g}/s" if self.price_per_s else f"${self.price_per_h:g}/h"


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    price: tuple[ListPrice, ...]


class Comparison(msgspec.Struct, frozen=True):
    """A month of a load at a list price."""

    price: ListPrice
    arithmetic: str
    cost: float


def read_prices(path: Path = PRICES) -> tuple[ListPrice, ...]:
    """The list prices of a file.

    Raises:
        InvalidSpec: it cannot be read, or a line is wrong.
    """
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _Table).price
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidSpec(f"{path}: {error}") from error


def price_of(workload: Workload, prices: tuple[ListPrice, ...]) -> tuple[float, str]:
    """What a second of a worker of this load costs, and where that is from.

    Raises:
        InvalidSpec: it names a list price that is not there, or none at all.
    """
    if workload.price_per_h:
        return workload.price_per_h / HOUR_S, f"${workload.price_per_h:g}/h, yours"
    if workload.price_per_s:
        return workload.price_per_s, f"${workload.price_per_s:g}/s, yours"
    for price in prices:
        if price.name == workload.price:
            return price.a_second, f"{price.shown}, {price.provider} {price.device}, {price.date}"
    names = ", ".join(price.name for price in prices if price.bills is Bills.UPTIME)
    raise InvalidSpec(f"`price` is {workload.price!r}: give a `price_per_h` of your own, or name one of {names}")


def compare(workload: Workload, planned: Forecast, prices: tuple[ListPrice, ...]) -> list[Comparison]:
    """What the load would cost at each list price of its kind of GPU."""
    fitting = (price for price in prices if price.gpu in (workload.gpu, "any"))
    return [_comparison(workload, planned, price) for price in fitting]


def _comparison(workload: Workload, planned: Forecast, price: ListPrice) -> Comparison:
    match price.bills:
        case Bills.BUSY:
            seconds, shown = _job_seconds(workload, planned)
            days = f" x {MONTH_DAYS:g}" if isinstance(workload.arrivals, Day) else ""
            return Comparison(price, f"{shown} x ${price.a_second:g}{days}", seconds * price.a_second)
        case Bills.UPTIME | Bills.FEE:
            if price.price_per_s:
                shown = f"{planned.worker_s:,.0f} s x ${price.price_per_s:g}"
            else:
                shown = f"{planned.worker_s / HOUR_S:,.1f} h x ${price.price_per_h:g}"
            beside = f" + ${planned.cost:,.2f} for the GPUs" if price.bills is Bills.FEE else ""
            cost = planned.worker_s * price.a_second + (planned.cost if price.bills is Bills.FEE else 0.0)
            return Comparison(price, shown + beside, cost)


def _job_seconds(workload: Workload, planned: Forecast) -> tuple[float, str]:
    """Seconds of workers that only the jobs take a month. Alone on a worker they are known without a simulation."""
    if workload.jobs_per_worker > 1:
        return planned.busy_s, f"{planned.busy_s:,.0f} s busy"
    if isinstance(workload.arrivals, Day):
        return workload.arrivals.jobs * workload.service_s * MONTH_DAYS, (
            f"{workload.arrivals.jobs:,} x {workload.service_s:g} s"
        )
    return planned.jobs * workload.service_s, f"{planned.jobs:,.0f} x {workload.service_s:g} s"
