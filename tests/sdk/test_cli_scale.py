"""`headrace scale`: bounds of a model, changed while everything runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
import pytest
import pytest_asyncio
from command_line import Headrace

from headrace import Client
from headrace.scaling_change import parse_changes, setting_rows, with_changes
from headrace_contracts.alert import ScalingDecision
from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import InvalidSpec
from headrace_contracts.heartbeat import EngineState, EngineStatus, WorkerStatus
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.names import Bucket
from headrace_contracts.scaling import Scaling, Window
from headrace_contracts.tasks.registry import Task
from headrace_storage.alerts import publish_alert
from headrace_storage.leadership import Leadership
from headrace_storage.registry import add_model, get_model
from headrace_storage.workers import put_status, remove_status

SPEC = ModelSpec("echo", Task.SYNTHETIC, EngineKind.SYNTHETIC, scaling=Scaling(min_workers=1, max_workers=3))
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_short_and_long_names_are_read_by_the_type_of_their_setting() -> None:
    words = ("min=0", "max=4", "buffer=1", "target_wait_s=2.5", "priority=-3")
    assert parse_changes(words) == {
        "min_workers": 0,
        "max_workers": 4,
        "buffer_workers": 1,
        "target_wait_s": 2.5,
        "priority": -3,
    }


def test_every_setting_but_the_schedule_can_be_changed() -> None:
    for field in msgspec.structs.fields(Scaling):
        if field.name != "schedule":
            assert parse_changes([f"{field.name}=1"]) == {field.name: 1}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("max",), "'max' is not key=value, as in `max=4`"),
        (("workers=2",), "`workers` is no setting of scaling; there are min, max, buffer, min_workers"),
        (("max=many",), "`max_workers` is 'many' and must be a whole number, as in 2"),
        (("max=1.5",), "`max_workers` is '1.5' and must be a whole number, as in 2"),
        (("idle_timeout_s=long",), "`idle_timeout_s` is 'long' and must be a number, as in 0.5 or 2"),
        (("max=2", "max_workers=3"), "`max_workers` is given twice: leave one out"),
        (("schedule=x",), "`schedule` cannot be set here"),
        (("min=4",), "`min_workers` is 4 and `max_workers` 3: min > max (`min=4 max=4` sets both)"),
        (("max=0",), "`min_workers` is 1 and `max_workers` 0: min > max (`min=0 max=0` sets both)"),
        (("max=-1",), "`max_workers` is -1 and must not be negative; echo was left as it is"),
        (("target_utilization=2",), "`target_utilization` is 2 and must be above 0 and up to 1"),
        (("target_wait_s=nan",), "`target_wait_s` is nan and must not be negative or endless"),
        (("cooldown_s=inf",), "`cooldown_s` is inf and must not be negative or endless"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_impossible_is_named_with_what_is_possible(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        with_changes(SPEC, parse_changes(words))
    assert sentence in str(refused.value)


def test_only_what_was_named_changes() -> None:
    schedule = (Window("0 8 * * *", 3600.0, min_workers=2),)
    spec = msgspec.structs.replace(SPEC, scaling=Scaling(1, 3, schedule=schedule, target_wait_s=4.0))
    changed = with_changes(spec, {"max_workers": 5})
    assert changed == msgspec.structs.replace(spec, scaling=Scaling(1, 5, schedule=schedule, target_wait_s=4.0))
    assert setting_rows(spec.scaling, changed.scaling) == [("max_workers", "3", "5")]
    assert ("schedule", "1 windows") in setting_rows(spec.scaling)


@pytest_asyncio.fixture
async def echo(client: Client) -> AsyncIterator[str]:
    """A model with one to three workers."""
    await add_model(client.connection, SPEC)
    yield SPEC.name
    await client.connection.js.purge_stream("ALERTS")
    await client.connection.js.purge_stream(f"KV_{Bucket.LEASES}")


async def scaling(client: Client) -> Scaling:
    return (await get_model(client.connection, "echo")).scaling


async def lead(client: Client) -> None:
    assert await Leadership(client.connection, "scaler", "host-1", SystemClock()).acquire()


def decision(target: int, reason: str, blocked: str = "") -> ScalingDecision:
    return ScalingDecision("echo", NOW, target, 1, 0, reason, blocked)


async def until_max(client: Client, wanted: int) -> None:
    async with asyncio.timeout(30):
        while (await scaling(client)).max_workers != wanted:
            await asyncio.sleep(0.02)


async def test_bounds_change_and_are_shown_before_and_after(
    client: Client, echo: str, headrace_command: Headrace
) -> None:
    ended = await (await headrace_command("scale", echo, "min=0", "max=5")).end()
    assert (ended.code, ended.out) == (0, "SETTING\tBEFORE\tAFTER\nmin_workers\t1\t0\nmax_workers\t3\t5\n")
    assert "no scaler runs" in ended.err
    assert await scaling(client) == Scaling(0, 5)
    again = await (await headrace_command("scale", echo, "max=5")).end()
    assert (again.code, again.out, again.err) == (0, "", "nothing was changed: echo has these settings already\n")


async def test_the_decision_that_followed_is_shown(client: Client, echo: str, headrace_command: Headrace) -> None:
    await publish_alert(client.connection, decision(1, "one from before"))
    await lead(client)
    running = await headrace_command("scale", echo, "max=7", "--wait-s", "30")
    await until_max(client, 7)
    # The command drops what it hears until its write is confirmed: say it until it listens.
    while running.process.returncode is None:
        await publish_alert(client.connection, decision(7, "seven jobs wait", "no_slot"))
        await asyncio.sleep(0.02)
    ended = await running.end()
    assert ended.out.splitlines()[-1] == "scaler host-1: 1 workers -> 7: seven jobs wait [no_slot]"


async def test_a_scaler_that_has_nothing_new_to_say_is_quoted_with_what_it_said(
    client: Client, echo: str, headrace_command: Headrace
) -> None:
    await publish_alert(client.connection, decision(1, "one job"))
    await lead(client)
    ended = await (await headrace_command("scale", echo, "max=4", "--wait-s", "0.1")).end()
    assert ended.out.splitlines()[-1] == "scaler host-1: nothing new; as before: 1 workers -> 1: one job"


async def test_an_impossible_change_is_one_sentence_and_writes_nothing(
    client: Client, echo: str, headrace_command: Headrace
) -> None:
    refused = await (await headrace_command("scale", echo, "buffer=1", "min=9")).end()
    assert refused.code == 2
    assert refused.err == (
        "error: `min_workers` is 9 and `max_workers` 3: min > max (`min=9 max=9` sets both); echo was left as it is\n"
    )
    assert await scaling(client) == SPEC.scaling
    unknown = await (await headrace_command("scale", "ehco", "max=1")).end()
    assert unknown.code == 2
    assert "did you mean 'echo'?" in unknown.err


async def test_two_operators_at_once_both_get_their_change(
    client: Client, echo: str, headrace_command: Headrace
) -> None:
    one, other = await headrace_command("scale", echo, "max=8"), await headrace_command("scale", echo, "buffer=2")
    assert [(await one.end()).code, (await other.end()).code] == [0, 0]
    assert await scaling(client) == Scaling(1, 8, 2)


async def test_settings_and_workers_are_shown(client: Client, echo: str, headrace_command: Headrace) -> None:
    engine = EngineStatus(echo, EngineState.READY, 1, ("a",), 1)
    await put_status(client.connection, WorkerStatus("w-1", "host", 7, NOW, NOW, False, (engine,), "cpu"))
    shown = (await (await headrace_command("scale", echo)).end()).out.splitlines()
    everything = (await (await headrace_command("scale")).end()).out.splitlines()
    as_json = json.loads((await (await headrace_command("scale", echo, "--json")).end()).out)
    await remove_status(client.connection, "w-1")
    assert "max_workers\t3" in shown
    assert "w-1\tcpu\tbusy\t1\t1\t" in shown
    assert "echo\t1\t3\t0\tready\t-" in everything
    assert as_json["scaling"]["max_workers"] == 3
    assert as_json["workers"][0]["id"] == "w-1"
