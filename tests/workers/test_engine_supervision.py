"""What can happen to an engine process, each with its own code, and what the worker says of itself meanwhile."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rig import DEADLINE_S, Rig

from headrace_contracts import event as events
from headrace_contracts.errors import ErrorCode
from headrace_contracts.heartbeat import EngineState
from headrace_contracts.model import Batching, Recycle, Resources, Retry, Timeouts
from headrace_contracts.result import Status

pytestmark = pytest.mark.slow

MIB = 1 << 20
CGROUP_V1 = Path("/sys/fs/cgroup/memory")
CGROUP_V2 = Path("/sys/fs/cgroup/cgroup.controllers")


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path]:
    """A cgroup of ours with a memory limit: what a container has."""
    root = CGROUP_V1 if (CGROUP_V1 / "memory.limit_in_bytes").exists() else CGROUP_V2.parent
    limit = "memory.limit_in_bytes" if root == CGROUP_V1 else "memory.max"
    group = root / f"headrace-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(limit_bytes))
    except OSError as error:
        pytest.skip(f"NOT TESTED: a kill by the kernel for memory; no cgroup can be made here ({error})")
    try:
        yield group
    finally:
        group.rmdir()


async def test_a_kill_by_the_kernel_for_memory_has_its_own_code(rig: Rig) -> None:
    with memory_cgroup(300 * MIB) as group:
        await rig.add_model(retry=Retry(max_attempts=1))
        worker = await rig.start_worker()
        (group / "cgroup.procs").write_text(str(rig.engine_pid(worker)))
        result = await rig.run(behaviour="memory_hog", memory_bytes=600 * MIB)
        assert "[oom_killed]" in result.error.message, result.error
        assert worker.returncode is None
        assert (await rig.run(echo="next")).status is Status.SUCCEEDED


async def test_an_engine_over_its_memory_limit_is_ended_before_the_machine_suffers(rig: Rig) -> None:
    await rig.add_model(resources=Resources(host_memory_bytes=250 * MIB), retry=Retry(max_attempts=1))
    await rig.start_worker()
    hungry = await rig.run(behaviour="memory_hog", memory_bytes=8192 * MIB)
    assert "[out_of_memory]" in hungry.error.message
    assert "and its limit is 250 MiB" in hungry.error.message
    assert (await rig.run(echo="next")).status is Status.SUCCEEDED


async def test_the_next_job_is_not_charged_for_what_the_last_one_kept(rig: Rig) -> None:
    await rig.add_model(resources=Resources(host_memory_bytes=250 * MIB), retry=Retry(max_attempts=1))
    await rig.start_worker()
    jobs = [await rig.submit(behaviour="leak", memory_bytes=120 * MIB) for _ in range(2)]
    jobs += [await rig.submit(steps=40, step_s=0.05) for _ in range(2)]
    results = [await rig.result(job_id) for job_id in jobs]
    assert [(result.status, result.attempts) for result in results] == [(Status.SUCCEEDED, 1)] * 4
    log = (rig.folder / "worker.log").read_text()
    assert "and its limit is 250 MiB" in log
    assert "engine ended" not in log


async def test_a_device_error_has_its_own_code_and_costs_one_job_only(rig: Rig) -> None:
    await rig.add_model(retry=Retry(max_attempts=2, base_delay_s=0.01, max_delay_s=0.02))
    worker = await rig.start_worker()
    before = rig.engine_pid(worker)
    job_id = await rig.submit(behaviour="sticky")
    seen = await rig.events(job_id, last=events.Retrying)
    assert seen[-1].code is ErrorCode.DEVICE_ERROR
    assert (await rig.result(job_id)).error.code is ErrorCode.POISONED
    results = [await rig.run(echo=str(n)) for n in range(3)]
    assert {(result.status, result.attempts) for result in results} == {(Status.SUCCEEDED, 1)}
    assert rig.engine_pid(worker) != before


@pytest.mark.parametrize("behaviour", ["nan", "empty"])
async def test_an_output_that_is_none_is_refused(rig: Rig, behaviour: str) -> None:
    await rig.add_model()
    await rig.start_worker()
    result = await rig.run(behaviour=behaviour, output_bytes=10)
    assert (result.status, result.error.code, result.artifacts) == (Status.FAILED, ErrorCode.INVALID_OUTPUT, ())


async def test_an_engine_is_replaced_after_some_jobs_without_a_job_noticing(rig: Rig) -> None:
    await rig.add_model(recycle=Recycle(jobs=10), batching=Batching(max_size=4))
    await rig.start_worker()
    jobs = [await rig.submit(steps=2, step_s=0.01) for _ in range(60)]
    results = [await rig.result(job_id) for job_id in jobs]
    assert {(result.status, result.attempts) for result in results} == {(Status.SUCCEEDED, 1)}
    log = (rig.folder / "worker.log").read_text()
    assert log.count("engine recycled") >= 3
    assert "engine ended" not in log, "replacing is no fault"


async def test_an_engine_that_leaks_is_replaced_between_two_jobs(rig: Rig) -> None:
    await rig.add_model(recycle=Recycle(growth_bytes=60 * MIB))
    await rig.start_worker()
    for _ in range(12):
        result = await rig.run(behaviour="leak", memory_bytes=40 * MIB)
        assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)
    log = (rig.folder / "worker.log").read_text()
    assert log.count("it has grown by") >= 5
    assert "engine ended" not in log


async def test_an_idle_engine_that_stands_still_is_replaced(rig: Rig) -> None:
    await rig.add_model(timeouts=Timeouts(run_s=60, step_s=1.0))
    worker = await rig.start_worker()
    frozen = rig.engine_pid(worker)
    os.kill(frozen, signal.SIGSTOP)
    await rig.until(lambda status: status.engines[0].state is not EngineState.READY)
    await rig.until(lambda status: status.engines[0].state is EngineState.READY)
    assert rig.engine_pid(worker) != frozen
    assert (await rig.run()).status is Status.SUCCEEDED


async def test_a_job_given_to_an_engine_that_stands_still_is_not_charged(rig: Rig) -> None:
    """It had not begun, so it cannot have done it."""
    await rig.add_model(timeouts=Timeouts(run_s=60, step_s=1.0))
    worker = await rig.start_worker()
    os.kill(rig.engine_pid(worker), signal.SIGSTOP)
    result = await rig.run()
    assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)


async def test_a_worker_is_not_green_while_its_engine_fails(rig: Rig) -> None:
    """Every job kills it; it loads well each time. From the second death on only a job that succeeds makes it green."""
    await rig.add_model(retry=Retry(max_attempts=4, base_delay_s=0.01, max_delay_s=0.02))
    await rig.start_worker()
    await rig.result(await rig.submit(behaviour="crash"))
    await rig.until(lambda status: status.engines[0].state is EngineState.RECOVERING)
    async with asyncio.timeout(DEADLINE_S):
        assert (await rig.run()).status is Status.SUCCEEDED
    await rig.until(lambda status: status.engines[0].state is EngineState.READY)
