"""Workers reap, one at a time: whoever dies, another goes on, and what happened meanwhile is found."""

import asyncio
import contextlib
import os
import signal
import uuid

import msgspec
import nats.js.errors
import pytest
from rig import DEADLINE_S, TENANT, Rig

from headrace_contracts.clock import SystemClock
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import ErrorCode
from headrace_contracts.job import JobBody
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.names import Bucket, Lane, Stream, consumer_name
from headrace_contracts.result import Result, Status
from headrace_contracts.tasks.registry import Task
from headrace_storage.jobs import submit_job
from headrace_storage.leadership import Claim, Leadership, LeaseName
from headrace_storage.registry import add_model, remove_model
from headrace_storage.results import wait_result

pytestmark = pytest.mark.slow


async def answered(rig: Rig, model: str = "no-such-model") -> Result:
    """Submit a job that only the reaper answers, and wait for it."""
    job_id = uuid.uuid4().hex
    await rig.connection.js.publish(f"jobs.{TENANT}.{model}.low", b'{"input": {}}', headers={"Nats-Msg-Id": job_id})
    async with asyncio.timeout(DEADLINE_S):
        return await wait_result(rig.connection, TENANT, model, job_id)


async def leader(rig: Rig, among: set[str]) -> str:
    """The worker that holds the lease, once one of these does."""
    key = f"$KV.{Bucket.LEASES}.{LeaseName.REAPER}"
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(nats.js.errors.NotFoundError, msgspec.DecodeError):  # free, for now
                entry = await rig.connection.js.get_last_msg(f"KV_{Bucket.LEASES}", key)
                holder = msgspec.json.decode(entry.data or b"", type=Claim).holder
                if holder in among:
                    return holder
            await asyncio.sleep(0.05)


async def two_workers(rig: Rig) -> dict[str, asyncio.subprocess.Process]:
    """Two workers by their ids."""
    await rig.add_model()
    processes = [await rig.start_worker(), await rig.start_worker()]
    found = [await rig.until(lambda status, pid=process.pid: status.pid == pid) for process in processes]
    return {status.id: process for status, process in zip(found, processes, strict=True)}


def reapers(rig: Rig) -> set[str]:
    """Ids of workers that say that they reaped."""
    lines = (msgspec.json.decode(line) for line in (rig.folder / "worker.log").read_bytes().splitlines())
    return {line["worker"] for line in lines if line["event"] == "reaped"}


async def test_of_two_workers_one_reaps(rig: Rig) -> None:
    workers = await two_workers(rig)
    for _ in range(5):
        assert (await answered(rig)).error.code is ErrorCode.UNKNOWN_MODEL
    assert reapers(rig) == {await leader(rig, set(workers))}


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
async def test_when_the_worker_that_reaps_is_killed_or_frozen_another_goes_on(
    rig: Rig, signal_number: signal.Signals
) -> None:
    workers = await two_workers(rig)
    first = await leader(rig, set(workers))
    os.kill(workers[first].pid, signal_number)
    assert (await answered(rig)).status is Status.FAILED
    [second] = set(workers) - {first}
    assert await leader(rig, {second}) == second
    assert reapers(rig) == {second}
    if signal_number == signal.SIGSTOP:
        workers[first].send_signal(signal.SIGCONT)
        await rig.until(lambda status: status.id == first)
        assert (await answered(rig)).status is Status.FAILED
        assert reapers(rig) == {second}


async def test_a_worker_that_stops_leaves_the_lease_to_others(rig: Rig) -> None:
    await rig.add_model()
    worker = await rig.start_worker()
    status = await rig.until(lambda status: status.pid == worker.pid)
    await leader(rig, {status.id})
    worker.send_signal(signal.SIGTERM)
    assert await worker.wait() == 0
    heir = Leadership(rig.connection, LeaseName.REAPER, "heir", SystemClock())
    assert await heir.acquire(), f"{heir.holder} still has it"
    await heir.release()


async def test_a_job_of_a_model_that_no_worker_serves_expires(rig: Rig) -> None:
    """Both while a reaper is there, and when it comes after the job's time."""
    orphan = f"{rig.model}-orphan"
    await add_model(rig.connection, ModelSpec(orphan, Task.SYNTHETIC, EngineKind.SYNTHETIC))

    async def submit() -> str:
        body = JobBody(msgspec.Raw(b"{}"), ttl_s=0.1)
        job_id = uuid.uuid4().hex
        await submit_job(rig.connection, TENANT, orphan, Lane.LOW, body, Encoding.JSON, job_id)
        return job_id

    early = await submit()
    await rig.add_model()
    await rig.start_worker()
    for job_id in (early, await submit()):
        async with asyncio.timeout(DEADLINE_S):
            result = await wait_result(rig.connection, TENANT, orphan, job_id)
        assert (result.status, result.error.code, result.worker) == (Status.EXPIRED, ErrorCode.TTL_EXPIRED, None)
    await remove_model(rig.connection, orphan)


async def test_a_job_longer_than_its_ttl_is_not_expired_while_it_runs(rig: Rig) -> None:
    """It did not wait for longer; one behind it does, and has no worker's time until then."""
    await rig.add_model()
    await rig.start_worker()
    runs = (await rig.submit_body({"input": {"steps": 80, "step_s": 0.1}, "ttl_s": 2}, f"runs-{rig.model}")).job_id
    await rig.until_running(runs)
    waits = (await rig.submit_body({"input": {}, "ttl_s": 0.1}, f"waits-{rig.model}")).job_id
    assert (await rig.result(waits)).status is Status.EXPIRED
    assert (await rig.result(runs)).status is Status.SUCCEEDED


async def test_consumers_deleted_under_a_worker_come_back_and_it_goes_on(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    assert (await rig.run()).status is Status.SUCCEEDED
    for lane in Lane:
        await rig.connection.js.delete_consumer(Stream.JOBS, consumer_name(rig.model, lane))
    assert (await rig.run()).status is Status.SUCCEEDED
    assert (await rig.run()).status is Status.SUCCEEDED
