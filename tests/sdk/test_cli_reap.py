"""`headrace reap`, where no worker runs that would do it."""

import asyncio
import signal

import pytest
from command_line import Headrace

from headrace import Client
from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import ErrorCode
from headrace_contracts.result import Result, Status
from headrace_storage.connection import Connection
from headrace_storage.lanes import lanes_of_model
from headrace_storage.leadership import Leadership, LeaseName
from headrace_storage.results import get_result, wait_result

pytestmark = pytest.mark.slow
TENANT = "default"


async def publish_misspelt(connection: Connection) -> str:
    return f"seq-{(await connection.js.publish('jobs.default.drew.low', b'{}')).seq}"


async def test_once_says_what_was_done(client: Client, headrace_command: Headrace) -> None:
    lost = await publish_misspelt(client.connection)
    canceled = await client.submit("write", prompt="x")
    await canceled.cancel()

    ended = await (await headrace_command("reap", "--once")).end()

    assert ended.code == 0, ended.err
    rows = [line.split("\t") for line in ended.out.splitlines()]
    assert ["unroutable", "jobs.default.drew.low", f"job {lost} failed: unknown_model"] in rows
    assert ["ended", f"results.default.write.{canceled.id}", "had ended: job removed"] in rows
    result = await get_result(client.connection, TENANT, "drew", lost)
    assert (result.status, result.error.code) == (Status.FAILED, ErrorCode.UNKNOWN_MODEL)
    assert not any(lane.waiting for lane in await lanes_of_model(client.connection, "write"))

    again = await (await headrace_command("reap", "--once")).end()
    assert (again.code, again.out, again.err) == (0, "", "nothing to do\n")


async def test_once_does_nothing_where_another_reaps(client: Client, headrace_command: Headrace) -> None:
    other = Leadership(client.connection, LeaseName.REAPER, "worker-7", SystemClock())
    assert await other.acquire()
    lost = await publish_misspelt(client.connection)
    reaped = await (await headrace_command("reap", "--once")).end()
    assert reaped.code == 3
    assert reaped.err == "nothing done: worker-7 reaps already, all the time\n"
    assert await get_result(client.connection, TENANT, "drew", lost) is None
    await other.release()


async def test_it_goes_on_until_it_is_stopped_and_gives_the_lease_back(
    client: Client, headrace_command: Headrace
) -> None:
    command = await headrace_command("reap")

    async def answered() -> Result:
        async with asyncio.timeout(60):
            return await wait_result(client.connection, TENANT, "drew", await publish_misspelt(client.connection))

    for _ in range(2):
        assert (await answered()).error.code is ErrorCode.UNKNOWN_MODEL
    command.process.send_signal(signal.SIGTERM)
    ended = await command.end()
    assert ended.code == 0
    assert ended.out.count("unknown_model") >= 2
    heir = Leadership(client.connection, LeaseName.REAPER, "heir", SystemClock())
    assert await heir.acquire()
    await heir.release()


async def test_a_broker_that_is_not_there_is_said(client: Client, headrace_command: Headrace) -> None:
    ended = await (await headrace_command("reap", "--once", NATS_URL="nats://127.0.0.1:1")).end()
    assert ended.code == 3
    assert "no NATS server" in ended.err
