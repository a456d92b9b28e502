"""What one model on one worker cost: bills of its jobs, and a page for each hour, kept in the ACCOUNTS bucket."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
import structlog

from headrace_contracts.clock import Clock
from headrace_contracts.cost import Bill, HourAccount, SlotKind, TenantAccount, price_per_s
from headrace_contracts.errors import HeadraceError
from headrace_contracts.heartbeat import Account
from headrace_contracts.settings import ScalerSettings
from headrace_storage.accounts import put_account
from headrace_storage.connection import Connection
from headrace_workers.accounting import difference
from headrace_workers.engine_host import EngineHost

# What a worker that is killed takes with it. Each writing costs the broker one small message per model and worker.
WRITE_EVERY_S = 10.0
# Not to turn round and round while the last moments of an hour go by.
SHORTEST_PAUSE_S = 0.05
HOUR = timedelta(hours=1)


class Payer(msgspec.Struct, frozen=True):
    """The worker, as far as its price goes."""

    worker_id: str
    slot: str
    """Where the scaler put it; empty if it was started by hand."""
    models: int
    """How many models it serves."""
    prices: ScalerSettings


class CostBook:
    """Bills and pages of one model on one worker."""

    def __init__(self, host: EngineHost, payer: Payer, clock: Clock) -> None:
        self._host = host
        self._payer = payer
        self._clock = clock
        self._hour = _hour_of(clock.now())
        # The page of its first hour has the whole start of the worker.
        self._before = Account()
        self._tenants: dict[str, TenantAccount] = {}
        self._full_pages: list[HourAccount] = []

    @property
    def slot(self) -> SlotKind:
        """What the worker runs on: told by the scaler, else by the engine, else by the model's file."""
        told = self._payer.slot or self._host.device or self._host.spec.resources.device
        return SlotKind.GPU if told.startswith(("gpu", "cuda")) else SlotKind.CPU

    @property
    def price_per_s(self) -> float:
        """Of a second of the worker, for this model; 0: none is set."""
        return price_per_s(self._host.spec, self.slot, self._payer.prices, self._payer.models)

    def charge(self, tenant: str, run_id: str, delivery: int, *, succeeded: bool) -> Bill | None:
        """The bill of a run that has ended; None if no engine began it."""
        engine_s = self._host.account.take_share(run_id)
        if engine_s is None:
            return None
        self._turn_page()
        known = self._tenants.get(tenant, TenantAccount())
        self._tenants[tenant] = TenantAccount(known.busy_s + engine_s, known.runs + 1, known.succeeded + succeeded)
        gpu_s = engine_s if self.slot is SlotKind.GPU else 0.0
        return Bill(delivery, engine_s, gpu_s, engine_s * self.price_per_s or None)

    def pages(self, *, ended: bool = False) -> list[HourAccount]:
        """What is to be written: hours gone by that are not written yet, and the present one."""
        self._turn_page()
        return [*self._full_pages, self._page(self._host.account.total, ended=ended)]

    def written(self, page: HourAccount) -> None:
        """A page is safe."""
        self._full_pages = [full for full in self._full_pages if full.hour != page.hour]

    def _turn_page(self) -> None:
        hour = _hour_of(self._clock.now())
        # A clock that was set back writes on: the page of an hour that is over would be written over.
        if hour > self._hour:
            total = self._host.account.total
            self._full_pages.append(self._page(total, ended=False))
            self._before, self._tenants, self._hour = total, {}, hour

    def _page(self, total: Account, *, ended: bool) -> HourAccount:
        return HourAccount(
            model=self._host.spec.name,
            worker=self._payer.worker_id,
            hour=self._hour,
            slot=self.slot,
            price_per_s=self.price_per_s,
            account=difference(total, self._before),
            succeeded=sum(tenant.succeeded for tenant in self._tenants.values()),
            tenants=dict(self._tenants),
            at=self._clock.now(),
            ended=ended,
        )


async def keep_books(connection: Connection, books: Sequence[CostBook], clock: Clock) -> None:
    """Write the pages every few seconds and at every full hour, until canceled."""
    trouble = ""
    while True:
        was, trouble = trouble, await write_pages(connection, books)
        if trouble and trouble != was:
            structlog.get_logger().warning("accounts not written yet", error=trouble)
        now = clock.now()
        to_the_hour_s = (_hour_of(now) + HOUR - now).total_seconds()
        await asyncio.sleep(max(SHORTEST_PAUSE_S, min(WRITE_EVERY_S, to_the_hour_s)))


async def write_pages(connection: Connection, books: Sequence[CostBook], *, ended: bool = False) -> str:
    """Write what there is to write; what stood in the way, or nothing. What was not written is tried again."""
    for book in books:
        for page in book.pages(ended=ended):
            try:
                await put_account(connection, page)
            except HeadraceError as error:
                return str(error)
            book.written(page)
    return ""


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
