"""What a worker logs about a job reaches whoever owns the job, and costs the job nothing where it does not."""

import asyncio

import msgspec
import nats.errors
import pytest
from rig import DEADLINE_S, TENANT, Rig

from headrace_contracts.log_line import LogLevel, LogLine
from headrace_contracts.names import Stream
from headrace_contracts.result import Status
from headrace_storage.log_lines import follow_lines

pytestmark = pytest.mark.slow


async def lines_until(rig: Rig, job_id: str, last: str) -> list[LogLine]:
    """Lines of a job up to the one that says `last`."""
    seen = []
    async with asyncio.timeout(DEADLINE_S):
        async for line in follow_lines(rig.connection, TENANT, rig.model, job_id):
            seen.append(line)
            if line.event == last:
                break
    return seen


async def test_lines_of_a_job_tell_its_way_and_nothing_of_what_is_in_it(rig: Rig) -> None:
    await rig.add_model()
    worker = await rig.start_worker("--id", "w-7")
    job_id = await rig.submit(echo="a secret", output_bytes=1000)
    lines = await lines_until(rig, job_id, "job ended")

    assert [line.event for line in lines] == ["job started", "artifacts stored", "job ended"]
    assert [line.attempt for line in lines] == [1, 1, 1]
    assert {line.worker for line in lines} == {"w-7"}
    assert lines[0].fields["lane"] == "normal"
    assert lines[1].fields["size_bytes"] == 1000
    assert lines[2].fields["status"] == "succeeded"
    assert sorted(line.at for line in lines) == [line.at for line in lines]
    assert b"secret" not in msgspec.json.encode(lines)
    told = [msgspec.json.decode(line) for line in (rig.folder / "worker.log").read_bytes().splitlines()]
    [ended] = [entry for entry in told if entry["event"] == "job ended"]
    expected = {"job_id": job_id, "model": rig.model, "tenant": TENANT, "worker": "w-7", "attempt": 1}
    assert expected.items() <= ended.items()
    assert {entry.get("component") for entry in told} == {"worker"}
    assert {entry.get("worker") for entry in told} == {"w-7"}
    assert worker.returncode is None


async def test_lines_of_a_retried_job_name_their_attempt(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    job_id = await rig.submit(behaviour="crash_once")
    lines = await lines_until(rig, job_id, "job ended")
    said = [(line.event, line.attempt) for line in lines]
    assert said == [
        ("job started", 1),
        ("attempt ended", 1),
        ("job tries again", 1),
        ("job taken", 2),
        ("job started", 2),
        ("job ended", 2),
    ]
    assert (lines[1].level, lines[1].fields["code"]) == (LogLevel.WARNING, "engine_crashed")


async def test_the_last_lines_of_a_worker_that_ends_are_sent(rig: Rig) -> None:
    await rig.add_model()
    worker = await rig.start_worker()
    job_id = await rig.submit(steps=1, step_s=0.5)
    await rig.until_running(job_id)
    worker.terminate()
    await worker.wait()
    assert [line.event for line in await lines_until(rig, job_id, "job ended")][-1] == "job ended"


async def test_without_the_stream_jobs_run_as_ever(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    await rig.connection.js.delete_stream(Stream.LOGS)
    for _ in range(3):
        assert (await rig.run(echo="x")).status is Status.SUCCEEDED
    ended = asyncio.Event()
    ended.set()
    assert [line async for line in follow_lines(rig.connection, TENANT, rig.model, "any", ended)] == []


async def test_a_broker_that_restarts_has_the_stream_again(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    before = await rig.submit(echo="x")
    await lines_until(rig, before, "job ended")
    await rig.server.kill()
    await rig.server.start()
    async with asyncio.timeout(DEADLINE_S):
        while "KV_WORKERS" not in (there := await stream_names(rig)) or Stream.LOGS not in there:
            await asyncio.sleep(0.05)
    job_id = await rig.submit(steps=3, step_s=0.1)
    assert (await lines_until(rig, job_id, "job ended"))[-1].fields["status"] == "succeeded"


async def stream_names(rig: Rig) -> set[str]:
    try:
        return {str(stream.config.name) for stream in await rig.connection.js.streams_info()}
    except nats.errors.Error:  # not connected again yet
        return set()
