"""Whatever is killed, every job ends once. Each test proves that its fault really happened."""

import os
import signal

import msgspec
import pytest
from lives import until_ended
from rig import LEASE_S, TENANT, Rig

from headrace_contracts import event as events
from headrace_contracts.attempts import Attempts
from headrace_contracts.errors import ErrorCode
from headrace_contracts.heartbeat import EngineState
from headrace_contracts.model import Batching, Timeouts
from headrace_contracts.names import Stream, dead_subject
from headrace_contracts.result import Status
from headrace_storage.attempts import get_attempts

pytestmark = pytest.mark.slow


async def test_a_killed_worker_has_its_job_finished_by_another(rig: Rig) -> None:
    await rig.add_model()
    first = await rig.start_worker()
    job_id = await rig.submit(steps=60, step_s=0.05, echo="survivor")
    await rig.until_running(job_id)
    engine = rig.engine_pid(first)
    first.kill()
    await first.wait()
    second = await rig.start_worker()
    result = await rig.result(job_id)
    assert result.status is Status.SUCCEEDED
    assert result.attempts == 2, "a worker that dies without a word costs an attempt"
    assert f"-{second.pid}-" in result.worker
    await until_ended(engine)


async def test_a_killed_engine_is_started_again_and_the_job_retried(rig: Rig) -> None:
    await rig.add_model()
    worker = await rig.start_worker()
    job_id = await rig.submit(steps=40, step_s=0.05)
    await rig.until_running(job_id)
    killed = rig.engine_pid(worker)
    os.kill(killed, signal.SIGKILL)
    result = await rig.result(job_id)
    assert (result.status, result.attempts) == (Status.SUCCEEDED, 2)
    assert rig.engine_pid(worker) != killed
    seen = await rig.events(job_id, last=events.Retrying)
    assert seen[-1].code is ErrorCode.ENGINE_CRASHED


async def test_a_crash_in_one_job_leaves_the_next_one_alone(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    crashing = await rig.submit(behaviour="crash_once")
    result = await rig.run(echo="next")
    assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)
    assert (await rig.result(crashing)).attempts == 2


async def test_a_job_that_keeps_crashing_is_given_up_and_kept_for_the_operator(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    job_id = await rig.submit(behaviour="crash")
    result = await rig.result(job_id)
    assert (result.status, result.error.code, result.attempts) == (Status.FAILED, ErrorCode.POISONED, 3)
    assert "SIGSEGV" in result.error.message
    dead = await rig.connection.js.get_last_msg(Stream.DEAD, dead_subject(TENANT, rig.model, job_id))
    assert msgspec.json.decode(dead.data) == {"input": {"behaviour": "crash"}}
    assert "gave up after 3 attempts" in dead.headers["Headrace-Reason"]
    assert (await rig.run()).status is Status.SUCCEEDED


async def test_out_of_memory_has_its_own_code(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    job_id = await rig.submit(behaviour="out_of_memory")
    await rig.result(job_id)
    seen = await rig.events(job_id, last=events.Retrying)
    assert seen[-1].code is ErrorCode.OUT_OF_MEMORY


async def test_an_engine_that_makes_no_step_is_killed(rig: Rig) -> None:
    """It hangs with the interpreter lock held: no code of its own could notice."""
    await rig.add_model(timeouts=Timeouts(run_s=60, step_s=0.5))
    await rig.start_worker()
    job_id = await rig.submit(behaviour="hang")
    result = await rig.result(job_id)
    assert result.error.code is ErrorCode.POISONED
    seen = await rig.events(job_id, last=events.Retrying)
    assert seen[-1].code is ErrorCode.ENGINE_HUNG


async def test_a_restart_of_the_broker_costs_a_running_job_nothing(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    job_id = await rig.submit(steps=60, step_s=0.05)
    await rig.until_running(job_id)
    await rig.server.kill()
    await rig.server.start()
    result = await rig.result(job_id)
    assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)
    # What the broker kept in memory is there again: heartbeats and events.
    next_job = await rig.submit(steps=20, step_s=0.05)
    await rig.until_running(next_job)
    await rig.events(next_job, last=events.Progress)
    assert (await rig.result(next_job)).status is Status.SUCCEEDED


async def test_a_lease_outlives_many_ack_waits(rig: Rig) -> None:
    """A job longer than its lease starts once, though an idle worker would take it if it came back."""
    await rig.add_model()
    await rig.start_worker()
    await rig.start_worker()
    job_id = await rig.submit(steps=round(2.5 * LEASE_S / 0.1), step_s=0.1)
    result = await rig.result(job_id)
    assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)
    assert result.timings.run_s > 2 * LEASE_S, "the job was too short to prove anything"
    started = await rig.connection.js.stream_info(Stream.EVENTS, subjects_filter=f"events.*.{rig.model}.*.started")
    assert list(started.state.subjects.values()) == [1]


async def test_a_worker_frozen_past_its_lease_changes_nothing_when_it_wakes(rig: Rig) -> None:
    await rig.add_model()
    frozen = await rig.start_worker()
    job_id = await rig.submit(steps=20, step_s=0.05)
    await rig.until_running(job_id)
    engine = rig.engine_pid(frozen)
    for pid in (frozen.pid, engine):
        os.kill(pid, signal.SIGSTOP)
    await rig.start_worker()
    result = await rig.result(job_id)
    assert f"-{frozen.pid}-" not in result.worker
    for pid in (engine, frozen.pid):
        os.kill(pid, signal.SIGCONT)
    await rig.until(lambda status: status.pid == frozen.pid and not status.engines[0].running)
    assert (await rig.result(job_id)).completed_at == result.completed_at


async def test_sigterm_lets_a_running_job_finish(rig: Rig) -> None:
    await rig.add_model()
    worker = await rig.start_worker()
    running = await rig.submit(steps=20, step_s=0.05)
    await rig.until_running(running)
    waiting = await rig.submit()
    worker.terminate()
    assert await worker.wait() == 0
    assert (await rig.result(running)).status is Status.SUCCEEDED
    await rig.start_worker()
    assert (await rig.result(waiting)).attempts == 1, "a shutdown costs no attempt"


async def test_a_job_longer_than_the_grace_is_handed_back_without_an_attempt(rig: Rig) -> None:
    await rig.add_model()
    worker = await rig.start_worker("--grace-s", "0.2")
    job_id = await rig.submit(steps=100, step_s=0.1)
    await rig.until_running(job_id)
    worker.terminate()
    assert await worker.wait() == 0
    record = await get_attempts(rig.connection, TENANT, rig.model, job_id)
    assert record == Attempts(excused=(1,), bills=record.bills)
    assert [bill.delivery for bill in record.bills] == [1], "an attempt that was not counted is paid for all the same"
    # The next worker finds it at once, not after the lease: it was given back.
    await rig.start_worker()
    await rig.until_running(job_id)
    await rig.cancel(job_id)


async def test_a_running_job_stops_at_its_next_step_when_canceled(rig: Rig) -> None:
    await rig.add_model()
    worker = await rig.start_worker()
    engine = rig.engine_pid(worker)
    job_id = await rig.submit(steps=100, step_s=0.05)
    await rig.until_running(job_id)
    await rig.cancel(job_id)
    await rig.until(lambda status: not status.engines[0].running)
    seen = await rig.events(job_id, last=events.Progress)
    assert len(seen) < 100
    assert (await rig.result(job_id)).status is Status.CANCELED
    assert rig.engine_pid(worker) == engine, "a job that stops by itself costs no engine"


async def test_an_engine_that_ignores_a_cancel_is_killed(rig: Rig) -> None:
    await rig.add_model()
    worker = await rig.start_worker()
    engine = rig.engine_pid(worker)
    job_id = await rig.submit(behaviour="hang")
    await rig.until_running(job_id)
    await rig.cancel(job_id)
    await rig.until(lambda status: not status.engines[0].running and status.engines[0].state is EngineState.READY)
    assert rig.engine_pid(worker) != engine
    assert (await rig.result(job_id)).status is Status.CANCELED


async def test_a_job_canceled_in_the_queue_never_starts(rig: Rig) -> None:
    await rig.add_model()
    job_id = await rig.submit()
    await rig.cancel(job_id)
    await rig.start_worker()
    other = await rig.submit()
    await rig.result(other)
    assert (await rig.result(job_id)).status is Status.CANCELED
    seen = await rig.connection.js.stream_info(Stream.EVENTS, subjects_filter=f"events.*.{rig.model}.*.started")
    assert [subject.split(".")[3] for subject in seen.state.subjects] == [other]


async def test_batch_mates_of_a_job_that_ignores_a_cancel_are_not_blamed(rig: Rig) -> None:
    await rig.add_model(batching=Batching(max_size=2))
    await rig.start_worker()
    innocent = await rig.submit(steps=60, step_s=0.05)
    await rig.until_running(innocent)
    hanging = await rig.submit(behaviour="hang")
    await rig.until_running(hanging)
    await rig.cancel(hanging)
    result = await rig.result(innocent)
    assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)


async def test_a_model_that_cannot_be_loaded_says_so_and_takes_no_jobs(rig: Rig) -> None:
    await rig.add_model(options={"load_error": "no such device"})
    await rig.spawn_worker()
    job_id = await rig.submit()
    status = await rig.until(lambda status: status.engines[0].state is EngineState.UNHEALTHY)
    assert "no such device" in status.engines[0].detail
    assert not status.engines[0].running
    await rig.cancel(job_id)
    await rig.connection.js.purge_stream(Stream.JOBS, subject=f"jobs.{TENANT}.{rig.model}.*")
