"""An engine that dies takes its batch with it: the guilty one ends, and the others never pay for it."""

import os
import signal

import pytest
from rig import TENANT, Rig

from headrace_contracts import event as events
from headrace_contracts.errors import ErrorCode
from headrace_contracts.model import Batching, Retry, Timeouts
from headrace_contracts.names import DeadHeader, Stream, dead_subject
from headrace_contracts.result import Status
from headrace_storage.attempts import get_attempts

pytestmark = pytest.mark.slow

FOUR = Batching(max_size=4, max_wait_s=0.2)


@pytest.mark.parametrize("behaviour", ["crash", "out_of_memory", "sticky", "hang"])
async def test_batch_mates_of_a_poisonous_job_succeed_without_a_failed_attempt(rig: Rig, behaviour: str) -> None:
    await rig.add_model(batching=FOUR, timeouts=Timeouts(run_s=60, step_s=1.0))
    innocent = [await rig.submit(steps=8, step_s=0.05, echo=str(n)) for n in range(3)]
    poison = await rig.submit(behaviour=behaviour, steps=3, step_s=0.05)
    await rig.start_worker()
    for job_id in innocent:
        result = await rig.result(job_id)
        assert (result.status, result.attempts) == (Status.SUCCEEDED, 1), result.error
    ended = await rig.result(poison)
    assert (ended.error.code, ended.attempts) == (ErrorCode.POISONED, 3)
    # The fault really met all of them.
    shared = [job_id for job_id in innocent if await was_retried(rig, job_id)]
    assert len(shared) == 3, "the poison did not run together with the others"


async def was_retried(rig: Rig, job_id: str) -> bool:
    info = await rig.connection.js.stream_info(
        Stream.EVENTS, subjects_filter=f"events.{TENANT}.{rig.model}.{job_id}.retrying"
    )
    return bool(info.state.subjects)


async def test_a_suspect_runs_alone(rig: Rig) -> None:
    """While it runs nobody else is in the engine, though there is room and jobs wait."""
    await rig.add_model(batching=FOUR)
    worker = await rig.start_worker()
    pair = [await rig.submit(steps=100, step_s=0.03) for _ in range(2)]
    for job_id in pair:
        await rig.until_running(job_id)
    os.kill(rig.engine_pid(worker), signal.SIGKILL)
    for job_id in pair:
        await rig.events(job_id, last=events.Retrying)
    others = [await rig.submit(steps=5, step_s=0.03) for _ in range(6)]
    results = [await rig.result(job_id) for job_id in (*pair, *others)]
    assert {(result.status, result.attempts) for result in results} == {(Status.SUCCEEDED, 1)}
    for suspect in results[:2]:
        for other in results:
            apart = other.completed_at <= suspect.started_at or suspect.completed_at <= other.started_at
            assert apart or other is suspect, f"{suspect.id} ran together with {other.id}"


async def test_the_last_words_of_an_engine_are_kept_with_the_dead_letter(rig: Rig) -> None:
    """A crash and a hang write where they happened, even with the interpreter lock held."""
    await rig.add_model(timeouts=Timeouts(run_s=60, step_s=0.5), retry=Retry(max_attempts=1))
    await rig.start_worker()
    for behaviour, words in (("crash", "Segmentation fault"), ("hang", "Aborted")):
        job_id = await rig.submit(behaviour=behaviour)
        await rig.result(job_id)
        dead = await rig.connection.js.get_last_msg(Stream.DEAD, dead_subject(TENANT, rig.model, job_id))
        assert words in dead.headers[DeadHeader.LAST_LINES]
        assert "synthetic.py" in dead.headers[DeadHeader.LAST_LINES]


async def test_a_job_that_was_with_a_worker_that_died_runs_alone_next(rig: Rig) -> None:
    await rig.add_model(batching=FOUR)
    first = await rig.start_worker()
    pair = [await rig.submit(steps=60, step_s=0.05) for _ in range(2)]
    for job_id in pair:
        await rig.until_running(job_id)
    first.kill()
    await first.wait()
    await rig.start_worker()
    results = [await rig.result(job_id) for job_id in pair]
    assert [(result.status, result.attempts) for result in results] == [(Status.SUCCEEDED, 2)] * 2
    spans = sorted((result.started_at, result.completed_at) for result in results)
    assert spans[0][1] <= spans[1][0], "two suspects ran together"


async def test_a_failure_that_the_model_does_not_want_repeated_ends_the_job_at_once(rig: Rig) -> None:
    await rig.add_model(retry=Retry(max_attempts=3, errors=(ErrorCode.ENGINE_HUNG,)))
    await rig.start_worker()
    result = await rig.run(behaviour="crash")
    assert (result.status, result.error.code, result.attempts) == (Status.FAILED, ErrorCode.ENGINE_CRASHED, 1)


async def test_a_failure_is_counted_once(rig: Rig) -> None:
    await rig.add_model(retry=Retry(max_attempts=2, base_delay_s=30, max_delay_s=30))
    await rig.start_worker()
    job_id = await rig.submit(behaviour="crash")
    seen = await rig.events(job_id, last=events.Retrying)
    assert 0 <= seen[-1].delay_s <= 30
    record = await get_attempts(rig.connection, TENANT, rig.model, job_id)
    assert [(failure.delivery, failure.code) for failure in record.failures] == [(1, ErrorCode.ENGINE_CRASHED)]
    await rig.cancel(job_id)
    await rig.connection.js.purge_stream(Stream.JOBS, subject=f"jobs.{TENANT}.{rig.model}.*")
    assert record.excused == ()
