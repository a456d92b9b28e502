"""Whatever is cut off, frozen or taken away and comes back: the worker finds out by itself and goes on."""

import os
import signal

import psutil
import pytest
from rig import LEASE_S, TENANT, Rig

from headrace_contracts import event as events
from headrace_contracts.limits import Limits
from headrace_contracts.model import Batching, Timeouts
from headrace_contracts.names import Lane, Stream, consumer_name
from headrace_contracts.result import Status
from headrace_storage.attempts import get_attempts
from headrace_storage.topology import ensure_consumers

pytestmark = pytest.mark.slow


async def test_consumers_that_are_deleted_and_made_again(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    assert (await rig.run()).status is Status.SUCCEEDED
    for lane in Lane:
        await rig.connection.js.delete_consumer(Stream.JOBS, consumer_name(rig.model, lane))
    job_id = await rig.submit()
    await ensure_consumers(rig.connection, rig.model, LEASE_S)
    assert (await rig.result(job_id)).status is Status.SUCCEEDED


async def test_one_lane_without_a_consumer_does_not_stop_the_others(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    await rig.connection.js.delete_consumer(Stream.JOBS, consumer_name(rig.model, Lane.HIGH))
    for lane in (Lane.NORMAL, Lane.LOW):
        assert (await rig.result(await rig.submit(lane=lane))).status is Status.SUCCEEDED
    await ensure_consumers(rig.connection, rig.model, LEASE_S)


async def test_a_broker_that_is_frozen_past_the_pings(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    job_id = await rig.submit(steps=10, step_s=0.05)
    await rig.until_running(job_id)
    os.kill(rig.server.pid, signal.SIGSTOP)
    try:
        await rig.until_logged("events are not taken", "result not stored yet", "heartbeat not sent")
    finally:
        os.kill(rig.server.pid, signal.SIGCONT)
    result = await rig.result(job_id)
    assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)
    assert (await rig.run()).status is Status.SUCCEEDED


async def test_a_cancel_whose_message_is_lost_is_found_by_its_result(rig: Rig) -> None:
    await rig.add_model()
    worker = await rig.start_worker()
    engine = rig.engine_pid(worker)
    job_id = await rig.submit(steps=100, step_s=0.2)
    await rig.until_running(job_id)
    await rig.commit_cancel(job_id)
    await rig.until(lambda status: not status.engines[0].running)
    assert (await rig.result(job_id)).status is Status.CANCELED
    assert rig.engine_pid(worker) == engine


async def test_a_flood_of_text_is_not_in_the_way_of_a_cancel(rig: Rig) -> None:
    """Megabytes of chunks a second, and nobody who reads them: the engine waits, and the supervisor does not grow."""
    await rig.add_model(limits=Limits(max_steps=10_000_000), timeouts=Timeouts(run_s=60, step_s=30, stop_s=60))
    worker = await rig.start_worker()
    engine = rig.engine_pid(worker)
    job_id = await rig.submit(steps=10_000_000, chunk_chars=20_000)
    seen = await rig.events(job_id, last=events.Chunk)
    assert len(seen[-1].text) == 20_000
    next_job = await rig.submit()
    before = psutil.Process(worker.pid).memory_info().rss
    await rig.cancel(job_id)
    assert (await rig.result(next_job)).status is Status.SUCCEEDED
    assert rig.engine_pid(worker) == engine, "it was killed, not stopped"
    assert psutil.Process(worker.pid).memory_info().rss < before + (64 << 20)


async def test_a_worker_that_lost_its_lease_says_that_it_lives(rig: Rig) -> None:
    """Frozen past its lease, it is no crash: its delivery is excused, and the other attempt is the first."""
    await rig.add_model(batching=Batching(max_size=2))
    frozen = await rig.start_worker()
    job_id = await rig.submit(steps=100, step_s=0.3)
    await rig.until_running(job_id)
    engine = rig.engine_pid(frozen)
    for pid in (frozen.pid, engine):
        os.kill(pid, signal.SIGSTOP)
    second = await rig.start_worker()
    await rig.until(lambda status: status.pid == second.pid and job_id in status.engines[0].running)
    for pid in (engine, frozen.pid):
        os.kill(pid, signal.SIGCONT)
    await rig.until_recorded(job_id, lambda record: 1 in record.excused and not record.failures)
    await rig.cancel(job_id)
    await rig.until(lambda status: status.pid == frozen.pid and not status.engines[0].running)
    await rig.until(lambda status: status.pid == second.pid and not status.engines[0].running)


async def test_an_outage_of_the_broker_costs_no_attempt_even_when_it_is_longer_than_the_lease(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    job_id = await rig.submit(steps=30, step_s=0.05)
    await rig.until_running(job_id)
    await rig.server.kill()
    await rig.until_logged("result not stored yet")
    await rig.pass_a_lease()
    await rig.server.start()
    result = await rig.result(job_id)
    assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)
    record = await get_attempts(rig.connection, TENANT, rig.model, job_id)
    assert record.failures == ()
