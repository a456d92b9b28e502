"""Every moment of a worker is counted once, and every busy moment is shared: the rules, on a clock set by hand."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_contracts.attempts import Attempts, Failure, billed, excused, failed
from headrace_contracts.cost import Bill, HourAccount, SlotKind, TenantAccount, price_per_s, usage_with
from headrace_contracts.errors import ErrorCode
from headrace_contracts.heartbeat import Account
from headrace_contracts.model import EngineKind, ModelSpec, Resources
from headrace_contracts.result import Usage
from headrace_contracts.settings import ScalerSettings
from headrace_contracts.tasks.registry import Task
from headrace_workers.accounting import EngineAccount
from headrace_workers.cost_book import CostBook, Payer
from headrace_workers.engine_host import EngineHost
from headrace_workers.process_age import process_age_s

PRICES = ScalerSettings(cpu_price_per_s=0.5, gpu_price_per_s=4.0)


class HandClock:
    """Moves only when told to."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.set_by_s = 0.0
        """How much somebody set the wall clock by."""

    def monotonic(self) -> float:
        return 1000.0 + self.passed_s

    def now(self) -> datetime:
        return datetime(2026, 11, 25, 3, tzinfo=UTC) + timedelta(seconds=self.passed_s + self.set_by_s)


def test_each_moment_is_one_of_three_and_a_busy_one_is_shared() -> None:
    clock = HandClock()
    account = EngineAccount(clock)
    clock.passed_s = 4
    account.ready()
    clock.passed_s = 5
    account.enter("a")
    clock.passed_s = 7
    account.enter("b")
    clock.passed_s = 11
    account.leave("a")
    clock.passed_s = 12
    account.leave("b")
    clock.passed_s = 20
    assert account.total == Account(starting_s=4, busy_s=7, idle_s=9, jobs=2)
    assert account.take_share("a") == 2 + 4 / 2
    assert account.take_share("b") == 4 / 2 + 1
    assert account.take_share("b") is None, "each is charged once"


def test_a_job_that_no_engine_began_has_no_share() -> None:
    assert EngineAccount(HandClock()).take_share("never") is None


def test_what_is_in_a_dying_engine_leaves_with_it_and_the_next_start_is_starting() -> None:
    clock = HandClock()
    account = EngineAccount(clock)
    account.ready()
    account.enter("a")
    account.enter("b")
    clock.passed_s = 6
    account.down()
    clock.passed_s = 9
    account.ready()
    assert account.total == Account(starting_s=3, busy_s=6, jobs=2)
    assert (account.take_share("a"), account.take_share("b")) == (3, 3)


def test_time_before_the_account_counts_as_starting() -> None:
    clock = HandClock()
    account = EngineAccount(clock, began_at=clock.monotonic() - 2.5)
    assert account.total.starting_s == 2.5


@given(st.integers(0, 2**32), st.integers(1, 300))
def test_shares_add_up_to_busy_and_the_three_to_the_uptime(seed: int, events: int) -> None:
    """Whatever happens in whatever order: also jobs that begin twice, leave twice, and engines that die full."""
    rng, clock = random.Random(seed), HandClock()
    account = EngineAccount(clock)
    run_ids = [str(number) for number in range(8)]
    shares = []
    for _ in range(events):
        clock.passed_s += rng.choice((0.0, 1e-6, 0.3, 7.1, 4000.0))
        run_id = rng.choice(run_ids)
        what = rng.choice(("ready", "down", "enter", "enter", "leave", "take"))
        if what == "take":
            shares.append(account.take_share(run_id) or 0.0)
        elif what == "enter":
            shares.append(account.take_share(run_id) or 0.0)
            account.enter(run_id)
        elif what == "leave":
            account.leave(run_id)
        else:
            getattr(account, what)()
    shares += [account.take_share(run_id) or 0.0 for run_id in run_ids]
    assert all(share >= 0 for share in shares)
    assert sum(shares) == pytest.approx(account.total.busy_s, abs=1e-6)
    assert account.total.uptime_s == pytest.approx(clock.passed_s, abs=1e-6)


def book_of(clock: HandClock, slot: str = "", device: str = "auto", models: int = 1, price: float = 0.0) -> CostBook:
    spec = ModelSpec(
        "echo", Task.SYNTHETIC, EngineKind.SYNTHETIC, resources=Resources(device=device), price_per_s=price
    )
    host = EngineHost(spec, Path(), clock, random.Random(1))
    return CostBook(host, Payer("w1", slot, models, PRICES), clock)


def run(book: CostBook, clock: HandClock, run_id: str, seconds: float, tenant: str = "acme") -> Bill | None:
    account = book._host.account
    account.ready()
    account.enter(run_id)
    clock.passed_s += seconds
    account.leave(run_id)
    return book.charge(tenant, run_id, 1, succeeded=True)


def test_a_bill_is_the_share_times_the_price_of_what_the_worker_runs_on() -> None:
    clock = HandClock()
    assert run(book_of(clock), clock, "a", 3) == Bill(1, 3, 0.0, 1.5)
    assert run(book_of(clock, slot="gpu:0"), clock, "a", 3) == Bill(1, 3, 3, 12)
    assert run(book_of(clock, device="cuda:1"), clock, "a", 3) == Bill(1, 3, 3, 12)
    assert run(book_of(clock, slot="cpu", device="cuda"), clock, "a", 3) == Bill(1, 3, 0.0, 1.5), "the scaler knows"
    assert run(book_of(clock, models=2), clock, "a", 3) == Bill(1, 3, 0.0, 0.75), "two models share a worker's price"
    assert run(book_of(clock, models=2, price=7.0), clock, "a", 3) == Bill(1, 3, 0.0, 21.0), "the model has its own"


def test_without_a_price_there_is_no_cost() -> None:
    clock = HandClock()
    book = book_of(clock)
    book._payer = Payer("w1", "", 1, ScalerSettings())
    assert run(book, clock, "a", 3) == Bill(1, 3)
    spec = book._host.spec
    assert price_per_s(spec, SlotKind.CPU, ScalerSettings(), 1) == 0


def test_an_hour_has_a_page_and_what_goes_on_is_split_at_the_hour() -> None:
    clock = HandClock()
    book = book_of(clock)
    book._host.account.ready()
    clock.passed_s = 3590
    book._host.account.enter("long")
    clock.passed_s = 3600
    [first, second] = book.pages()
    assert (first.hour.hour, first.account) == (3, Account(busy_s=10, idle_s=3590))
    assert (second.hour.hour, second.account) == (4, Account())
    clock.passed_s = 3605
    book.charge("acme", "long", 1, succeeded=False)
    [again, second] = book.pages(ended=True)
    assert again == first, "until it is written"
    book.written(again)
    assert second.account == Account(busy_s=5, jobs=1)
    assert second.tenants == {"acme": TenantAccount(15, 1, 0)}
    assert (first.ended, second.ended) == (False, True)
    assert [page.hour.hour for page in book.pages()] == [4]


def test_a_clock_that_is_set_back_writes_over_no_earlier_hour() -> None:
    clock = HandClock()
    book = book_of(clock)
    book._host.account.ready()
    clock.passed_s = 3601
    for page in book.pages():
        book.written(page)
    clock.set_by_s = -60
    clock.passed_s = 3610
    [page] = book.pages()
    assert page.hour.hour == 4
    assert page.account.idle_s == 9


def test_all_pages_of_a_worker_have_all_of_its_time() -> None:
    clock, rng = HandClock(), random.Random(3)
    book = book_of(clock)
    pages: dict[datetime, HourAccount] = {}
    for number in range(200):
        run(book, clock, str(number), rng.uniform(0, 300))
        clock.passed_s += rng.uniform(0, 300)
        for page in book.pages():
            pages[page.hour] = page
            book.written(page)
    assert len(pages) > 10
    assert sum(page.account.uptime_s for page in pages.values()) == pytest.approx(clock.passed_s, abs=1e-6)
    billed_s = sum(page.tenants["acme"].busy_s for page in pages.values())
    assert billed_s == pytest.approx(sum(page.account.busy_s for page in pages.values()), abs=1e-6)


def test_what_earlier_runs_took_goes_into_the_usage() -> None:
    record = billed(failed(Attempts(), Failure(ErrorCode.MODEL_ERROR, "no", "w", 1)), Bill(1, 2.0, 2.0, 8.0))
    record = billed(excused(record, 2), Bill(2, 1.0, 0.0, None))
    record = billed(excused(record, 2), Bill(2, 1.5, 0.0, None))
    assert [bill.delivery for bill in record.bills] == [1, 2], "a bill that is written twice counts once"
    assert excused(record, 3).bills == record.bills
    usage = usage_with(Usage(images=2), (*record.bills, Bill(4, 0.5, 0.5, 2.0)))
    assert usage == Usage(engine_s=4.0, gpu_s=2.5, images=2, cost=10.0)
    assert usage_with(Usage(), ()) == Usage()
    assert billed(record, None) == record


def test_the_age_of_this_process_is_known_and_of_one_in_a_strange_container_is_not_guessed(tmp_path: Path) -> None:
    assert process_age_s() > 0
    assert process_age_s(tmp_path) == 0
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "stat").write_text("7 (a) b) S " + "0 " * 18 + "12345 0 0")
    (tmp_path / "uptime").write_text("200.00 1.0")
    assert process_age_s(tmp_path) == pytest.approx(200 - 123.45)
    (tmp_path / "uptime").write_text("3.00 1.0")
    assert process_age_s(tmp_path) == 0
