"""The same id again: one job, one run, one result; another job under it is refused."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from stage import Setting, Stage, play

from headrace_contracts.errors import JobConflict
from headrace_loadgen.check.history import History
from headrace_loadgen.records import Accepted, FaultKind, NotAccepted

pytestmark = pytest.mark.slow

RACERS = 50


async def racers(stage: Stage) -> None:
    """Many submit the same at once, while nobody runs it; one submits something else."""
    order = stage.order(job_id="same", output_bytes=100)
    assert order.asked is not None
    await asyncio.gather(*(stage.clients.submit(order) for _ in range(RACERS)))
    other = msgspec.structs.replace(order, asked=msgspec.structs.replace(order.asked, seed=99))
    assert not await stage.clients.submit(other)
    await stage.start_workers()
    await stage.until_ended(order)


async def test_racers_make_one_job(tmp_path: Path) -> None:
    judged = await play(tmp_path, Setting(come_later=True), racers)
    assert judged.violated == {}
    [job] = History.of(judged.evidence).jobs.values()
    assert len(job.runs) == 1
    assert sum(isinstance(record, Accepted) for record in judged.client) == RACERS
    assert [r.error for r in judged.client if isinstance(r, NotAccepted)] == [JobConflict.__name__]


async def again_after_a_restart(stage: Stage) -> None:
    """The broker forgets the ids of what it no longer holds when it is restarted."""
    order = await stage.submit(job_id="same", output_bytes=100)
    await stage.until_ended(order)
    await stage.until(lambda: stage.entries())
    await stage.inject(FaultKind.BROKER_KILL)
    async with asyncio.timeout(30):
        assert await stage.clients.submit(order)
    other = await stage.submit()
    await stage.until_ended(order, other)


async def test_a_job_that_has_ended_is_not_run_again_though_the_broker_forgot_it(tmp_path: Path) -> None:
    judged = await play(tmp_path, Setting(), again_after_a_restart)
    assert judged.violated == {}
    jobs = History.of(judged.evidence).jobs
    assert len(jobs["same"].accepted_at_s) == 2
    assert len(jobs["same"].runs) == 1
