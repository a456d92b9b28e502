"""`headrace logs`, as a process of its own."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from command_line import Headrace
from staged_worker import StagedWorker

import headrace.client
from headrace import Client
from headrace_contracts.log_line import LogLevel, LogLine
from headrace_storage.log_lines import publish_lines

pytestmark = pytest.mark.slow
AT = datetime(2026, 5, 4, 3, 2, 1, 67_000, tzinfo=UTC)
TAKEN = LogLine(AT, LogLevel.INFO, "job taken", "w-1", fields={"lane": "high"})
FAILED = LogLine(AT, LogLevel.WARNING, "attempt ended", "w-1", 1, "ab" * 16, {"at": "a b.py:3", "why": "\x1b[2J"})


async def test_lines_are_printed_in_order(client: Client, worker: StagedWorker, headrace_command: Headrace) -> None:
    job = await client.submit("write", prompt="x")
    await publish_lines(worker.connection, "default", "write", job.id, (TAKEN,))
    await publish_lines(worker.connection, "default", "write", job.id, (FAILED,))
    await publish_lines(worker.connection, "other", "write", job.id, (TAKEN,))
    await worker.connection.nc.publish(f"logs.default.write.{job.id}", b"no line of ours")
    await worker.connection.nc.flush()
    printed = await (await headrace_command("logs", job.id)).end()
    assert printed.out.splitlines() == [
        "03:02:01.067 info    w-1: job taken lane=high",
        f'03:02:01.067 warning w-1 attempt 1: attempt ended at="a b.py:3" why="\\u001b[2J" trace_id={"ab" * 16}',
    ]
    as_json = await (await headrace_command("logs", job.id, "--model", "write", "--json")).end()
    assert [json.loads(line)["event"] for line in as_json.out.splitlines()] == ["job taken", "attempt ended"]
    assert await job.logs() == [TAKEN, FAILED]


async def test_following_ends_after_the_job(client: Client, worker: StagedWorker, headrace_command: Headrace) -> None:
    job = await client.submit("write", prompt="x")
    following = await headrace_command("logs", "-f", job.id)
    assert following.process.stdout is not None
    await publish_lines(worker.connection, "default", "write", job.id, (TAKEN,))
    assert b"job taken" in await following.process.stdout.readline()
    await worker.succeed(job, {"text": "red", "finish_reason": "stop", "seed": 7})
    # As a worker does: its last lines come after the result.
    await publish_lines(worker.connection, "default", "write", job.id, (FAILED,))
    ended = await following.end()
    assert (ended.code, "attempt ended" in ended.out) == (0, True), ended


async def test_lines_that_come_a_moment_after_the_result_are_followed(
    client: Client, worker: StagedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker sends its last lines when the result is there already."""
    monkeypatch.setattr(headrace.client, "LAST_LINES_S", 2.0)
    job = await client.submit("write", prompt="x")

    async def told() -> list[LogLine]:
        return [line async for line in job.follow_logs()]

    following = asyncio.create_task(told())
    await worker.succeed(job, {"text": "red", "finish_reason": "stop", "seed": 7})
    await job.result()
    await asyncio.sleep(0.2)  # what a worker waits for more lines, and then some
    await publish_lines(worker.connection, "default", "write", job.id, (FAILED,))
    assert await following == [FAILED]


async def test_a_job_without_lines_is_explained(client: Client, headrace_command: Headrace) -> None:
    job = await client.submit("write", prompt="x")
    none = await (await headrace_command("logs", job.id)).end()
    assert (none.code, none.out) == (0, "")
    assert "it is queued; no worker has taken it yet" in none.err


@pytest.mark.parametrize("arguments", [(), ("--model", "write")])
async def test_an_unknown_job_is_an_error(headrace_command: Headrace, arguments: tuple[str, ...]) -> None:
    ended = await (await headrace_command("logs", "no-such-job", *arguments)).end()
    assert ended.code != 0
    assert "no-such-job" in ended.err
