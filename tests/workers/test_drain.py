"""A worker that is asked, on its own control subject, to take no more jobs and to end."""

import asyncio
import contextlib
import signal
import uuid
from datetime import timedelta

from rig import DEADLINE_S, Rig

from headrace_contracts.heartbeat import DrainRequest
from headrace_contracts.result import Status
from headrace_storage.control import ask_to_drain
from headrace_storage.workers import list_workers

IF_IDLE, AFTER_ITS_JOBS = DrainRequest(only_if_idle=True), DrainRequest(only_if_idle=False)


def some_id() -> str:
    return f"w-{uuid.uuid4().hex[:8]}"


async def start(rig: Rig, worker_id: str, *arguments: str) -> asyncio.subprocess.Process:
    return await rig.start_worker("--id", worker_id, *arguments)


async def ended(worker: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(DEADLINE_S):
        return await worker.wait()


async def test_a_worker_has_the_name_and_the_slot_it_was_given(rig: Rig) -> None:
    await rig.add_model()
    worker_id = some_id()
    await start(rig, worker_id, "--slot", "cpu")
    status = await rig.until(lambda status: status.id == worker_id)
    assert status.slot == "cpu"


async def test_an_idle_worker_drains_and_ends_with_zero(rig: Rig) -> None:
    await rig.add_model()
    worker_id = some_id()
    worker = await start(rig, worker_id)
    reply = await ask_to_drain(rig.connection, worker_id, IF_IDLE)
    assert reply is not None
    assert (reply.draining, reply.jobs) == (True, 0)
    assert await ended(worker) == 0
    assert worker_id not in {status.id for status in await list_workers(rig.connection)}
    assert await ask_to_drain(rig.connection, worker_id, IF_IDLE) is None


async def test_a_busy_worker_refuses_to_drain_and_goes_on_taking_jobs(rig: Rig) -> None:
    await rig.add_model()
    worker_id = some_id()
    await start(rig, worker_id)
    job = await rig.submit(steps=1, step_s=1.0)
    await rig.until_running(job)
    reply = await ask_to_drain(rig.connection, worker_id, IF_IDLE)
    assert reply is not None
    assert (reply.draining, reply.jobs) == (False, 1)
    assert (await rig.result(job)).status is Status.SUCCEEDED
    assert (await rig.run(echo="next")).status is Status.SUCCEEDED


async def test_a_busy_worker_that_must_drain_finishes_its_job_however_long_its_grace(rig: Rig) -> None:
    await rig.add_model()
    worker_id = some_id()
    worker = await start(rig, worker_id, "--grace-s", "0.1")
    job = await rig.submit(steps=20, step_s=0.1)
    await rig.until_running(job)
    reply = await ask_to_drain(rig.connection, worker_id, AFTER_ITS_JOBS)
    assert reply is not None
    assert reply.draining
    result = await rig.result(job)
    assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)
    assert await ended(worker) == 0


async def test_a_draining_worker_that_is_told_to_stop_gives_its_job_back_after_the_grace(rig: Rig) -> None:
    await rig.add_model()
    worker_id = some_id()
    worker = await start(rig, worker_id, "--grace-s", "0.1")
    job = await rig.submit(steps=100, step_s=0.3)
    await rig.until_running(job)
    await ask_to_drain(rig.connection, worker_id, AFTER_ITS_JOBS)
    worker.send_signal(signal.SIGTERM)
    assert await ended(worker) == 0
    await rig.cancel(job)
    await start(rig, some_id())


async def test_whoever_asks_nonsense_gets_no_answer_and_does_no_harm(rig: Rig) -> None:
    await rig.add_model()
    worker_id = some_id()
    await start(rig, worker_id)
    with contextlib.suppress(TimeoutError):
        await rig.connection.nc.request(f"control.drain.{worker_id}", b"\xff{", timeout=0.3)
    assert (await rig.run(echo="still there")).status is Status.SUCCEEDED


async def test_a_heartbeat_says_since_when_the_worker_is_idle(rig: Rig) -> None:
    await rig.add_model()
    worker_id = some_id()
    await start(rig, worker_id)
    first = await rig.until(lambda status: status.id == worker_id and status.engines[0].idle_since is not None)
    job = await rig.submit(steps=1, step_s=0.5)
    busy = await rig.until_running(job)
    assert busy.engines[0].idle_since is None
    result = await rig.result(job)
    later = await rig.until(lambda status: status.id == worker_id and status.engines[0].idle_since is not None)
    assert later.engines[0].idle_since is not None
    assert first.engines[0].idle_since is not None
    assert later.engines[0].idle_since > first.engines[0].idle_since
    assert later.engines[0].idle_since >= result.completed_at - timedelta(seconds=0.5)
