"""`headrace cost`: the arithmetic, by hand; then the command over accounts on a real broker."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import click
import msgspec
import pytest
import pytest_asyncio
from command_line import Headrace

from headrace.cli.cost_lines import NOBODY, By, amount, lines_by, notes_on, total_of
from headrace.cli.since import moment
from headrace_contracts.cost import HourAccount, SlotKind, TenantAccount
from headrace_contracts.heartbeat import Account
from headrace_contracts.names import Bucket
from headrace_contracts.settings import Settings
from headrace_storage.accounts import list_accounts, put_account
from headrace_storage.connection import Connection
from headrace_storage.topology import ensure_topology

NOW = datetime(2026, 11, 25, 3, 30, tzinfo=UTC)
HOUR = NOW.replace(minute=0)
MONTH_S = 31 * 86_400.0


def page(model: str = "draw", worker: str = "w1", hours_ago: int = 0, **changes: object) -> HourAccount:
    """An hour of 100 s: 60 busy, 30 idle, 10 starting, at 2 a second, for two tenants."""
    tenants = {"acme": TenantAccount(40, 4, 3), "zeta": TenantAccount(20, 2, 2)}
    account = Account(starting_s=10, busy_s=60, idle_s=30, jobs=6)
    hour = HOUR - timedelta(hours=hours_ago)
    told = HourAccount(model, worker, hour, SlotKind.GPU, 2.0, account, 5, tenants, NOW, ended=True)
    return msgspec.structs.replace(told, **changes)


def test_a_model_costs_all_the_time_of_its_workers() -> None:
    [draw, hear] = lines_by([page(), page(worker="w2", price_per_s=4.0), page("hear")], By.MODEL)
    assert (draw.runs, draw.succeeded, draw.uptime_s, draw.utilization) == (12, 10, 200, 0.6)
    assert (draw.busy_cost, draw.idle_cost, draw.starting_cost) == (120 + 240, 60 + 120, 20 + 40)
    assert (draw.cost, draw.cost_per_success) == (600, 60)
    assert hear.cost == 200
    assert total_of([draw, hear]).cost == 800


def test_tenants_pay_for_their_runs_and_the_rest_is_nobodys() -> None:
    [acme, zeta, nobody] = lines_by([page()], By.TENANT)
    assert (acme.name, acme.cost, zeta.cost) == ("acme", 80, 40)
    assert (nobody.name, nobody.busy_s, nobody.cost) == (NOBODY, 0, 80)
    assert total_of([acme, zeta, nobody]).cost == total_of(lines_by([page()], By.MODEL)).cost


def test_of_a_run_past_the_hour_the_lines_still_add_up() -> None:
    long_run = {"acme": TenantAccount(100, 1, 1)}
    pages = [page(hours_ago=1, tenants={}), page(account=Account(busy_s=40), tenants=long_run)]
    [acme, nobody] = lines_by(pages, By.TENANT)
    assert (acme.busy_s, nobody.busy_s) == (100, 0)
    assert total_of(lines_by(pages[1:], By.TENANT)).busy_s == 40


def test_without_a_price_there_is_no_cost_and_it_is_said_how_to_set_one() -> None:
    free = page("free", price_per_s=0.0, slot=SlotKind.CPU)
    lines = lines_by([free, page()], By.MODEL)
    assert [line.cost for line in lines] == [200, None]
    assert lines[1].cells()[-5:] == ("-",) * 5
    assert total_of(lines).cost == 200
    [note] = notes_on([free, page()], frozenset(), HOUR, NOW, MONTH_S)
    assert "free on a cpu slot" in note
    assert "draw" not in note
    assert "`cpu_price_per_s`" in note


def test_workers_without_a_last_word_are_counted() -> None:
    told = [
        page(worker="killed", ended=False),
        page(worker="alive", ended=False),
        page(worker="done", hours_ago=1, ended=False),
        page(worker="done", ended=True),
    ]
    [note] = notes_on(told, frozenset({"alive"}), HOUR, NOW, MONTH_S)
    assert note.startswith("1 workers ended without a last word (killed)")
    assert "up to 10 s" in note


def test_hours_and_days_that_are_not_there_are_said() -> None:
    assert notes_on([], frozenset(), HOUR + timedelta(minutes=5), NOW, MONTH_S) == [
        "accounts are by the hour: from 2026-11-25 03:00 UTC on"
    ]
    [note] = notes_on([], frozenset(), HOUR - timedelta(days=40), NOW, MONTH_S)
    assert "kept for 31 days" in note


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("24h", NOW - timedelta(days=1)),
        ("7d", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(days=14)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T08:00+02:00", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ],
)
def test_since_is_so_long_ago_or_a_date(text: str, meant: datetime) -> None:
    assert moment(text, NOW) == meant


@pytest.mark.parametrize(
    ("text", "says"), [("yesterday", "is no time"), ("24", "is no time"), ("9" * 20 + "d", "is no"), ("2027", "is no")]
)
def test_since_says_what_it_takes(text: str, says: str) -> None:
    with pytest.raises(click.BadParameter, match=says) as raised:
        moment(text, NOW)
    assert "24h, 7d" in str(raised.value)


def test_a_time_ahead_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="2026-12-01 00:00 UTC lies ahead"):
        moment("2026-12-01", NOW)


def test_amounts_are_readable() -> None:
    written = [amount(money) for money in (None, 0.0, 0.00000123456, 0.00115, 3.14159, 5175.0, 1234567.891)]
    assert written == ["-", "0", "0.0000012346", "0.00115", "3.142", "5175.00", "1234567.89"]


@pytest_asyncio.fixture
async def connection(settings: Settings) -> AsyncIterator[Connection]:
    async with Connection(settings.nats) as connection:
        await connection.js.purge_stream(f"KV_{Bucket.ACCOUNTS}")
        yield connection


@pytest.mark.slow
async def test_the_command_adds_up_what_workers_told(headrace_command: Headrace, connection: Connection) -> None:
    empty = await (await headrace_command("cost")).end()
    assert (empty.code, empty.out) == (0, "")
    assert "no worker has told of its time since" in empty.err
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    for told in (page(hour=hour), page(hour=hour, price_per_s=3.0), page("hear", hour=hour - timedelta(days=3))):
        await put_account(connection, told)
    shown = await (await headrace_command("cost", "--since", "2h")).end()
    rows = [line.split("\t") for line in shown.out.splitlines()]
    assert rows[0][:3] == ["MODEL", "RUNS", "SUCCEEDED"]
    assert rows[1] == ["draw", "6", "5", "60.0", "30.0", "10.0", "100.0", "60%", "300.00", "180.00", "90", "30", "60"]
    assert [row[0] for row in rows] == ["MODEL", "draw", "total"], "written over, and the older one left out"
    assert "accounts are by the hour" in shown.err
    as_json = msgspec.json.decode((await (await headrace_command("cost", "--since", "7d", "--json")).end()).out)
    assert [line["name"] for line in as_json["lines"]] == ["draw", "hear"]
    assert as_json["total"]["cost"] == 500
    one = await (await headrace_command("cost", "--since", "7d", "--model", "hear", "--by", "worker")).end()
    assert one.code == 0, one.err
    assert [line.split("\t")[0] for line in one.out.splitlines()] == ["WORKER", "w1", "total"]
    wrong = await (await headrace_command("cost", "--since", "soon")).end()
    assert wrong.code == 2
    assert "'soon' is no time: write 90m, 24h" in wrong.err


@pytest.mark.slow
async def test_a_broker_that_was_set_up_before_there_were_accounts_has_none(connection: Connection) -> None:
    await connection.js.delete_stream(f"KV_{Bucket.ACCOUNTS}")
    assert await list_accounts(connection, NOW) == []
    await ensure_topology(connection)


@pytest.mark.slow
async def test_an_hour_is_there_until_it_is_over(connection: Connection) -> None:
    for hours_ago in (0, 1, 2):
        await put_account(connection, page(hours_ago=hours_ago))
    found = await list_accounts(connection, NOW - timedelta(hours=1))
    assert [account.hour for account in found] == [HOUR - timedelta(hours=1), HOUR]
    assert found[0] == page(hours_ago=1)
