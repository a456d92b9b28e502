"""Where a job is, how it is found by its id, and how it is canceled."""

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest
from staged_worker import StagedWorker

from headrace import Client, Settings, UnknownJob
from headrace.canceling import Origin, cancel_job
from headrace_contracts.clock import SystemClock
from headrace_contracts.codec import Encoding
from headrace_contracts.job import JobBody
from headrace_contracts.names import DEFAULT_TENANT, Lane, cancel_subject
from headrace_storage.jobs import submit_job
from headrace_storage.lookup import BATCH_MESSAGES, find_job

pytestmark = pytest.mark.asyncio(loop_scope="module")
PICTURE = {"images": [], "seeds": [], "width": 8, "height": 8}


async def test_an_attempt_that_failed_is_in_the_queue_again(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="star")
    await worker.start(job)
    await worker.progress(job, 1, 2)
    await worker.retry(job, "no ink")

    waiting = await job.status()
    assert (waiting.state, waiting.attempt, waiting.last_failure) == ("queued", 1, "no ink")

    await worker.start(job, attempt=2)
    again = await job.status()
    assert (again.state, again.attempt, again.done, again.last_failure) == ("running", 2, None, "no ink")


async def test_a_job_nobody_submitted_is_unknown(client: Client) -> None:
    assert (await client.handle("draw", "nobody").status()).state == "unknown"
    with pytest.raises(UnknownJob, match="no trace of a job 'nobody'"):
        await client.cancel("draw", "nobody")
    with pytest.raises(UnknownJob):
        await client.find("nobody")


async def test_a_job_is_found_wherever_it_is(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="star")
    assert (await client.find(job.id)).model == "draw"  # in the queue
    await worker.start(job)
    assert (await client.find(job.id)).model == "draw"  # by its event
    await worker.succeed(job, PICTURE)
    assert (await client.find(job.id)).model == "draw"  # by its result


async def test_a_job_is_found_behind_a_thousand_others(client: Client) -> None:
    await client.submit_many("echo", [{"echo": "x"}] * (BATCH_MESSAGES + 10))
    last = await client.submit("echo", echo="last")
    found = await find_job(client.connection, DEFAULT_TENANT, last.id)
    assert found is not None
    assert found.id == last.id


async def test_a_job_without_an_id_is_found_by_its_place(client: Client) -> None:
    body = JobBody(msgspec.Raw(b'{"prompt":"star"}'), metadata={"page": 3})
    receipt = await submit_job(client.connection, DEFAULT_TENANT, "draw", Lane.NORMAL, body, Encoding.JSON)
    assert receipt.job_id.startswith("seq-")

    job = await client.find(receipt.job_id)

    assert await job.cancel() == "canceled"
    result = await job.result(30)
    assert (result.status, result.metadata) == ("canceled", {"page": 3})
    stored = await client.connection.js.get_last_msg("RESULTS", f"results.default.draw.{receipt.job_id}")
    assert (stored.data or b"")[:1] == b"{"  # in the encoding of the job


async def test_a_named_job_does_not_answer_to_its_place(client: Client) -> None:
    await client.submit("draw", prompt="star", job_id="named")
    job = await find_job(client.connection, DEFAULT_TENANT, "named")
    assert job is not None
    info = await client.connection.js.stream_info("JOBS")
    assert await find_job(client.connection, DEFAULT_TENANT, f"seq-{info.state.last_seq}") is None


async def test_the_canceled_result_is_there_before_the_worker_is_told(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="star", metadata={"page": 3})
    await worker.start(job)
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def heard(_: object) -> None:
        told.set_result((await client.status("draw", job.id)).state)

    await worker.connection.nc.subscribe(cancel_subject(DEFAULT_TENANT, "draw", job.id), cb=heard)
    await worker.connection.nc.flush()
    await worker.connection.nc.flush()

    assert await job.cancel() == "canceling"

    async with asyncio.timeout(10):
        assert await told == "canceled"
    result = await job.result(30)
    assert (result.metadata, result.attempts, result.error and result.error.code) == ({"page": 3}, 1, "canceled")
    assert await job.cancel() == "already canceled"


async def test_cancel_and_finish_cannot_both_win(client: Client, worker: StagedWorker) -> None:
    for _ in range(30):
        job = await client.submit("draw", prompt="star")
        said, committed = await asyncio.gather(job.cancel(), worker.succeed(job, PICTURE))
        status = (await job.result(30)).status
        assert (said, committed.won, status) in [
            ("canceled", False, "canceled"),
            ("already succeeded", True, "succeeded"),
        ]


async def test_a_cancel_that_comes_second_reads_the_winner(client: Client, worker: StagedWorker) -> None:
    """The job ends after `cancel` has looked for a result and before it commits its own."""
    job = await client.submit("draw", prompt="star")
    await worker.succeed(job, PICTURE)
    origin = Origin(Encoding.MSGPACK, datetime.now(UTC), {})
    said = await cancel_job(client.connection, DEFAULT_TENANT, "draw", job.id, "1", origin, SystemClock())
    assert said == "already succeeded"
    assert (await job.result(30)).status == "succeeded"


async def test_tenants_do_not_see_each_other(client: Client, settings: Settings) -> None:
    job = await client.submit("draw", prompt="star")
    async with Client(msgspec.structs.replace(settings, tenant="other")) as other:
        with pytest.raises(UnknownJob):
            await other.find(job.id)
        assert (await other.status("draw", job.id)).state == "unknown"
        theirs = await other.submit("draw", prompt="star")
        assert (await other.find(theirs.id)).id == theirs.id
