"""What a plan says, against arithmetic by hand and queueing theory."""

import math
from datetime import UTC
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from headrace_contracts.errors import InvalidSpec
from headrace_contracts.scaling import Scaling, Window
from headrace_scaler.plan.cli import plan
from headrace_scaler.plan.find import changed, find
from headrace_scaler.plan.forecast import Forecast, forecast
from headrace_scaler.plan.prices import Bills, compare, price_of, read_prices
from headrace_scaler.plan.stretches import stretches_of
from headrace_scaler.plan.workload import Batch, BusinessHours, Day, Workload, built_in, load_workload

DAY_S, MONTH_S = 86_400.0, 30 * 86_400.0
EXACT = 1e-9


def workload(arrivals: Day | BusinessHours | Batch, service_s: float = 3.0, **changes: object) -> Workload:
    load = Workload("a load", arrivals, service_s, p95_wait_s=60.0, price_per_h=3.6)
    return msgspec.structs.replace(load, **changes)


def always(workers: int) -> Scaling:
    return Scaling(min_workers=workers, max_workers=workers)


def planned(**changes: object) -> Forecast:
    """A month that anybody can calculate with: 1,000 h of workers, half of it busy."""
    month = Forecast(Scaling(), 1_500_000, 1_800_000, 3_600_000, 1.4, 4, 0.1, 5.0, 8.0, 0, 0.001, 30.0)
    return msgspec.structs.replace(month, **changes)


def test_busy_seconds_are_jobs_times_service_and_cost_is_seconds_times_price() -> None:
    load = workload(Day(2_000, swing=0.8), scaling=Scaling(max_workers=4, idle_timeout_s=60))
    month = forecast(load, price_per_s=0.002)
    assert month.jobs == 2_000 * 30
    assert month.busy_s == pytest.approx(2_000 * 3 * 30, rel=EXACT)
    assert month.worker_s >= month.busy_s
    assert month.cost == month.worker_s * 0.002
    assert month.cost_per_job == pytest.approx(month.cost / 60_000)
    assert month.utilization == month.busy_s / month.worker_s
    assert month.mean_workers == pytest.approx(month.worker_s / MONTH_S)
    assert month.mean_workers <= month.most_workers <= 4


def test_workers_that_are_always_there_cost_the_whole_month() -> None:
    month = forecast(workload(BusinessHours(0.2), scaling=always(2)), price_per_s=0.001)
    assert month.worker_s == pytest.approx(2 * MONTH_S, rel=1e-4), "but for the moment of their start"
    assert month.jobs == pytest.approx(0.2 * 8 * 3600 * 30 * 5 / 7)
    assert month.busy_s == pytest.approx(month.jobs * 3, rel=EXACT)


def test_a_load_that_pauses_costs_nothing_in_the_pause() -> None:
    load = workload(BusinessHours(0.2, 9, 17), scaling=Scaling(max_workers=3, idle_timeout_s=60))
    month = forecast(load, price_per_s=1.0)
    working_s = 30 * 5 / 7 * 8 * 3600
    assert month.busy_s <= month.worker_s <= 3 * working_s


def test_a_batch_is_done_by_its_workers_side_by_side() -> None:
    load = workload(Batch(100, every_days=10), 10.0, cold_start_s=20.0, scaling=Scaling(max_workers=5))
    month = forecast(load, price_per_s=1.0)
    assert month.jobs == 100 * 3
    assert month.busy_s == pytest.approx(100 * 10 * 3, rel=EXACT)
    assert month.p95_total_s == pytest.approx(20 + 10 * 95 / 5, abs=10)
    assert month.most_workers == 5


@pytest.mark.parametrize("utilization", [0.6, 0.7, 0.8])
def test_waits_are_those_of_queueing_theory(utilization: float) -> None:
    """One worker, independent jobs of 3 s: an M/D/1 queue. Its waits fall off as C exp(-r t) for an r that is known."""
    service_s = 3.0
    month = forecast(workload(Day(round(DAY_S * utilization / service_s)), service_s, scaling=always(1)), 1.0)
    root = _root(utilization)
    share = (1 - utilization) / (utilization * math.exp(root) - 1)
    theory_s = service_s * math.log(share / 0.05) / root
    assert month.p95_wait_s == pytest.approx(theory_s, rel=0.15)
    assert month.p95_wait_s < service_s / (1 - utilization) * math.log(utilization / 0.05), "M/M/1 waits for longer"
    assert month.utilization == pytest.approx(utilization, abs=0.01)
    assert month.busy_s == pytest.approx(month.jobs * service_s, rel=EXACT), "the last jobs of a day end as well"
    assert not month.unfinished


def _root(utilization: float) -> float:
    """The positive solution of `utilization * (exp(r) - 1) = r`."""
    low, high = 1e-6, 10.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if utilization * math.expm1(middle) < middle else (low, middle)
    return low


def test_what_is_too_much_for_the_workers_does_not_hold() -> None:
    month = forecast(workload(Day(40_000), scaling=always(1)), price_per_s=1.0)
    assert month.unfinished > 10_000
    assert not month.holds
    slow = planned(p95_wait_s=30.1)
    assert planned().holds
    assert not slow.holds
    assert not planned(unfinished=1).holds


def test_the_same_seed_gives_the_same_plan_and_the_number_of_jobs_is_exact() -> None:
    load = workload(Day(500, swing=1.0), scaling=Scaling(max_workers=2))
    assert forecast(load, 1.0, seed=3) == forecast(load, 1.0, seed=3)
    for seed in range(5):
        [day] = stretches_of(load, "m", seed)
        moments = [arrival.at for arrival in day.arrivals]
        assert len(moments) == 500
        assert moments == sorted(moments)
        noon = sum(DAY_S / 4 <= at < DAY_S * 3 / 4 for at in moments)
        assert noon == pytest.approx(500 * (0.5 + 1 / math.pi), abs=60), "most come around noon"


def test_days_of_a_month_add_up_and_the_week_begins_on_a_monday() -> None:
    for arrivals in (Day(10), BusinessHours(0.01), Batch(10, every_days=7)):
        stretches = stretches_of(workload(arrivals), "m", 1)
        assert sum(one.times_a_month * one.length_s for one in stretches) == pytest.approx(MONTH_S)
    working, off = stretches_of(workload(BusinessHours(0.01, 8, 20)), "m", 1)
    assert (working.start.weekday(), off.start.weekday()) == (0, 5)
    assert all(8 * 3600 <= arrival.at < 20 * 3600 for arrival in working.arrivals)


def test_a_schedule_is_followed() -> None:
    window = Window("0 9 * * mon-fri", 8 * 3600.0, str(UTC), min_workers=2)
    load = workload(BusinessHours(0.001), scaling=Scaling(max_workers=2, schedule=(window,), idle_timeout_s=10))
    month = forecast(load, price_per_s=1.0)
    assert month.worker_s == pytest.approx(30 * 5 / 7 * 2 * 8 * 3600, rel=0.02)


# Prices


def test_list_prices_as_a_reader_calculates_them() -> None:
    load = load_workload("sdxl")
    rows = {one.price.name: one for one in compare(load, planned(), read_prices())}
    public = rows["replicate-a100-40gb"]
    assert public.arithmetic == "50,000 x 3 s x $0.00115 x 30"
    assert public.cost == pytest.approx(5_175)
    private = rows["replicate-private-a100-80gb"]
    assert (private.arithmetic, private.cost) == ("3,600,000 s x $0.0014", pytest.approx(5_040))
    rented = rows["comparison-a100-40gb"]
    assert (rented.arithmetic, rented.cost) == ("1,000.0 h x $4.45", pytest.approx(4_450))
    fee = rows["baseten-fee-high"]
    assert fee.arithmetic == "1,000.0 h x $2.5 + $3,600.00 for the GPUs"
    assert fee.cost == pytest.approx(2_500 + 3_600)


def test_jobs_side_by_side_pay_for_busy_workers_and_not_for_each_other() -> None:
    [row] = [
        one
        for one in compare(load_workload("chat"), planned(), read_prices())
        if one.price.name == "replicate-a100-40gb"
    ]
    assert (row.arithmetic, row.cost) == ("1,800,000 s busy x $0.00115", pytest.approx(2_070))


def test_every_list_price_says_from_where_and_when() -> None:
    for price in read_prices():
        assert price.source
        assert price.date.year >= 2026
        assert price.a_second == pytest.approx(price.price_per_s or price.price_per_h / 3600)
    assert {price.bills for price in read_prices()} == set(Bills)


def test_a_worker_costs_what_you_say_before_what_others_say() -> None:
    load = load_workload("sdxl")
    listed, _ = price_of(load, read_prices())
    assert listed == pytest.approx(1.99 / 3600)
    assert price_of(msgspec.structs.replace(load, price_per_h=7.2), read_prices())[0] == pytest.approx(0.002)
    assert price_of(msgspec.structs.replace(load, price_per_s=0.003), read_prices()) == (0.003, "$0.003/s, yours")
    with pytest.raises(InvalidSpec, match="give a `price_per_h` of your own, or name one of"):
        price_of(msgspec.structs.replace(load, price="nobody"), read_prices())


def test_a_wrong_table_of_prices_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[price]]\nname = "x"\nprovider = "x"\ngpu = "a100"\ndevice = "x"\nbills = "busy"\n')
    with pytest.raises(InvalidSpec, match=r"mine\.toml.*source"):
        read_prices(file)
    file.write_text(file.read_text() + 'source = "me"\ndate = 2026-11-25\n')
    with pytest.raises(InvalidSpec, match="one of `price_per_s` and `price_per_h`"):
        read_prices(file)


# Finding


def test_the_cheapest_that_holds_is_found() -> None:
    """A made-up world: each second of `target_wait_s` saves money until 30 s, where it no longer holds."""
    load = workload(Day(10), scaling=Scaling(max_workers=4, target_wait_s=60.0))

    def run(one: Workload) -> Forecast:
        wait_s = one.scaling.target_wait_s or 1.0
        return planned(scaling=one.scaling, worker_s=1_000_000 - wait_s * 1_000, p95_wait_s=wait_s)

    tried, best = find(load, run, most_tries=30)
    assert not tried[0].holds
    assert best.scaling.target_wait_s == 30
    assert best.cost == min(one.cost for one in tried if one.holds)
    assert list(changed(best.scaling, load.scaling)) == ["target_wait_s = 30"]


def test_where_nothing_holds_the_shortest_wait_is_shown_and_tries_are_bounded() -> None:
    load = workload(Day(10), scaling=Scaling(max_workers=4))

    def run(one: Workload) -> Forecast:
        return planned(scaling=one.scaling, p95_wait_s=100 - one.scaling.min_workers)

    tried, best = find(load, run, most_tries=12)
    assert len(tried) <= 12
    assert not best.holds
    assert best.scaling.min_workers == 2


def test_finding_makes_a_real_plan_cheaper() -> None:
    wasteful = Scaling(max_workers=4, min_workers=2, idle_timeout_s=600)
    load = workload(BusinessHours(0.1), p95_wait_s=100.0, scaling=wasteful)
    tried, best = find(load, lambda one: forecast(one, 0.001), most_tries=5)
    assert tried[0].holds
    assert best.holds
    assert best.cost < tried[0].cost / 2


# Loads


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (("servce_s=4",), r"Object contains unknown field `servce_s`"),
        (("service_s=0",), r"`service_s` is 0 and must be above 0"),
        (("scaling.max_workers=0",), r"`scaling.max_workers` is 0"),
        (("scaling.min_workers=99",), r"min > max - at `\$\.scaling`"),
        (('arrivals.kind="hour"',), r"Invalid value 'hour'"),
        (("arrivals.swing=2",), r"`swing` is 2 and must be 0 to 1 - at `\$\.arrivals`"),
        (("service_s",), "is not key=value"),
        (("service_s=three",), "the value is no TOML"),
        (("service_s.x=3",), "service_s is no table"),
    ],
)
def test_a_wrong_load_says_what_and_where(changes: tuple[str, ...], says: str) -> None:
    with pytest.raises(InvalidSpec, match=says):
        load_workload("sdxl", changes)


def test_a_load_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(InvalidSpec, match="none of audio, chat, sdxl, and no file"):
        load_workload("sdx")


def test_the_built_in_loads_are_what_they_are_called() -> None:
    sdxl, chat, audio = (load_workload(name) for name in ("sdxl", "chat", "audio"))
    assert built_in() == ["audio", "chat", "sdxl"]
    assert (sdxl.arrivals.jobs, sdxl.service_s) == (50_000, 3)
    assert (chat.arrivals.jobs_per_s, chat.p95_wait_s, chat.arrivals.jobs) == (5, 2, 144_000)
    assert audio.arrivals.jobs * 600 / 3600 == 10_000


# The command


def test_the_command_shows_the_arithmetic(tmp_path: Path) -> None:
    small = ("--set", "arrivals.jobs=600", "--price-per-h", "3.6")
    shown = CliRunner().invoke(plan, ["sdxl", *small])
    assert shown.exit_code == 0, shown.output
    assert "18,000 a month of 30 days" in shown.output
    assert "busy         54,000 s of" in shown.output
    assert "x $0.001 = $" in shown.output
    assert "600 x 3 s x $0.00115 x 30\t$62.10\t2026-11-25" in shown.output
    assert "Prices change" in shown.output
    as_json = msgspec.json.decode(CliRunner().invoke(plan, ["sdxl", *small, "--json"]).output)
    assert as_json["cost"] == pytest.approx(as_json["worker_s"] * 0.001)
    assert as_json["holds"] is True


def test_a_built_in_load_is_a_beginning_for_ones_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(CliRunner().invoke(plan, ["audio", "--show"]).output)
    assert load_workload(str(mine)) == load_workload("audio")
    nothing = CliRunner().invoke(plan, [])
    assert nothing.exit_code == 2
    assert "audio, chat, sdxl" in nothing.output


def test_finding_tells_which_settings_to_change() -> None:
    asked = ["sdxl", "--set", "arrivals.jobs=600", "--set", "p95_wait_s=100", "--set", "scaling.min_workers=3"]
    found = CliRunner().invoke(plan, [*asked, "--find", "--tries", "4"])
    assert found.exit_code == 0, found.output
    assert "min_workers = 0" in found.output
    assert "of 4 settings hold" in found.output
