"""Accounts of workers added up to lines of a table, and what they leave out. Pure."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from headrace_contracts.cost import HourAccount
from headrace_contracts.heartbeat import Account

# A worker that is killed loses no more than this; it is what `docs/cost.md` promises.
LOST_S = 10
NOBODY = "(none)"

HEADINGS = (
    *("RUNS", "SUCCEEDED", "BUSY S", "IDLE S", "STARTING S", "UPTIME S", "UTILIZED"),
    *("COST", "OF BUSY", "OF IDLE", "OF STARTING", "PER SUCCESS"),
)


class By(StrEnum):
    """What the lines are."""

    MODEL = "model"
    TENANT = "tenant"
    WORKER = "worker"


class Line(msgspec.Struct, frozen=True):
    """Seconds and money of one model, tenant or worker. Money is None where no second has a price."""

    name: str
    runs: int = 0
    """Attempts that left an engine, however they ended."""
    succeeded: int = 0
    busy_s: float = 0.0
    idle_s: float = 0.0
    starting_s: float = 0.0
    busy_cost: float | None = None
    idle_cost: float | None = None
    starting_cost: float | None = None

    @property
    def uptime_s(self) -> float:
        """All seconds."""
        return self.busy_s + self.idle_s + self.starting_s

    @property
    def cost(self) -> float | None:
        """All money."""
        return _sum(_sum(self.busy_cost, self.idle_cost), self.starting_cost)

    @property
    def utilization(self) -> float | None:
        """Busy share of the uptime."""
        return self.busy_s / self.uptime_s if self.uptime_s > 0 else None

    @property
    def cost_per_success(self) -> float | None:
        """Everything, what failed and idled included, by the runs that succeeded."""
        return self.cost / self.succeeded if self.cost is not None and self.succeeded else None

    def plus(self, other: "Line") -> "Line":
        """Both, under this one's name."""
        return Line(
            self.name,
            self.runs + other.runs,
            self.succeeded + other.succeeded,
            self.busy_s + other.busy_s,
            self.idle_s + other.idle_s,
            self.starting_s + other.starting_s,
            _sum(self.busy_cost, other.busy_cost),
            _sum(self.idle_cost, other.idle_cost),
            _sum(self.starting_cost, other.starting_cost),
        )

    def as_json(self) -> dict[str, object]:
        """For programs."""
        derived = ("uptime_s", "utilization", "cost", "cost_per_success")
        return {**msgspec.structs.asdict(self), **{name: getattr(self, name) for name in derived}}

    def cells(self) -> tuple[str, ...]:
        """For the table; in the order of HEADINGS."""
        used = "-" if self.utilization is None else f"{self.utilization:.0%}"
        seconds = (self.busy_s, self.idle_s, self.starting_s, self.uptime_s)
        money = (self.cost, self.busy_cost, self.idle_cost, self.starting_cost, self.cost_per_success)
        counts = (str(self.runs), str(self.succeeded))
        return (self.name, *counts, *(f"{s:.1f}" for s in seconds), used, *(amount(m) for m in money))


def lines_by(accounts: Iterable[HourAccount], by: By) -> list[Line]:
    """One line per model, tenant or worker, by name; what belongs to no tenant comes last."""
    split = {By.MODEL: _of_model, By.WORKER: _of_worker, By.TENANT: _of_tenants}[by]
    lines: dict[str, Line] = {}
    for account in accounts:
        for line in split(account):
            lines[line.name] = lines.get(line.name, Line(line.name)).plus(line)
    return sorted(lines.values(), key=lambda line: (line.name == NOBODY, line.name))


def total_of(lines: Iterable[Line]) -> Line:
    """All lines together."""
    total = Line("total")
    for line in lines:
        total = total.plus(line)
    return total


def notes_on(
    accounts: Sequence[HourAccount], alive: frozenset[str], since: datetime, now: datetime, kept_s: float
) -> list[str]:
    """What the numbers do not say, for people.

    Args:
        accounts: those shown.
        alive: ids of the workers that are there.
        since: from when they were asked for.
        now: until when.
        kept_s: how long accounts are kept.
    """
    notes = []
    if since.replace(minute=0, second=0, microsecond=0) != since:
        notes.append(f"accounts are by the hour: from {since.astimezone(UTC):%Y-%m-%d %H}:00 UTC on")
    if (now - since).total_seconds() > kept_s:
        notes.append(f"accounts are kept for {kept_s / 86_400:.0f} days: older ones are gone")
    last = {(account.worker, account.model): account for account in sorted(accounts, key=lambda one: one.hour)}
    gone = sorted({worker for (worker, _), account in last.items() if not account.ended and worker not in alive})
    if gone:
        who = ", ".join(gone[:3]) + (" ..." if len(gone) > 3 else "")
        notes.append(
            f"{len(gone)} workers ended without a last word ({who}): killed, or cut off from the broker; "
            f"up to {LOST_S} s of each are missing"
        )
    unpriced = sorted({(account.model, account.slot.value) for account in accounts if not account.price_per_s})
    if unpriced:
        which = ", ".join(f"{model} on a {slot} slot" for model, slot in unpriced)
        notes.append(
            f"no price is set for {which}: `price_per_s` in the model's file, or `cpu_price_per_s` and "
            "`gpu_price_per_s` in [scaler] of the workers' headrace.toml, gives one to what they do from then on"
        )
    return notes


def amount(money: float | None) -> str:
    """Money with four digits that matter, or whole cents."""
    if money is None:
        return "-"
    if abs(money) >= 100:
        return f"{money:.2f}"
    # Not `g` alone: it writes small amounts with an exponent.
    digits = f"{money:.4g}"
    return f"{money:.10f}".rstrip("0") if "e" in digits else digits


def _of_model(page: HourAccount) -> list[Line]:
    return [_line(page.model, page, page.account, page.account.jobs, page.succeeded)]


def _of_worker(page: HourAccount) -> list[Line]:
    return [_line(page.worker, page, page.account, page.account.jobs, page.succeeded)]


def _of_tenants(page: HourAccount) -> list[Line]:
    """Each tenant's runs; then what no tenant has asked for, so that the lines add up to the whole."""
    lines = [
        _line(name, page, Account(busy_s=tenant.busy_s), tenant.runs, tenant.succeeded)
        for name, tenant in page.tenants.items()
    ]
    theirs_s = sum(tenant.busy_s for tenant in page.tenants.values())
    # Of a run that lasts past an hour: here its time, and there the run. Over all hours it is none.
    left = msgspec.structs.replace(page.account, busy_s=page.account.busy_s - theirs_s)
    return [*lines, _line(NOBODY, page, left, 0, 0)]


def _line(name: str, page: HourAccount, account: Account, runs: int, succeeded: int) -> Line:
    of: Callable[[float], float | None] = lambda s: s * page.price_per_s if page.price_per_s else None  # noqa: E731
    parts = (account.busy_s, account.idle_s, account.starting_s)
    return Line(name, runs, succeeded, *parts, *(of(part) for part in parts))


def _sum(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
