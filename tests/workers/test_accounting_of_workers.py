"""What a real worker tells of its time is all of it: against the time of its process, and against its jobs' results."""

import asyncio
import random
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from rig import DEADLINE_S, TENANT, Rig

from headrace_contracts.clock import SystemClock
from headrace_contracts.cost import HourAccount, SlotKind
from headrace_contracts.heartbeat import EngineState
from headrace_contracts.model import Batching, EngineKind, ModelSpec
from headrace_contracts.result import Result, Status
from headrace_contracts.tasks.registry import Task
from headrace_contracts.tasks.synthetic import SyntheticInput
from headrace_storage.accounts import list_accounts
from headrace_storage.registry import add_model
from headrace_workers.engine_host import EngineHost
from headrace_workers.frames import Run

pytestmark = pytest.mark.slow

PRICE_PER_S = 0.25
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
# The kernel tells the start of a process in ticks of a hundredth, and the uptime likewise.
TICKS_S = 0.02


async def accounts(rig: Rig, worker: asyncio.subprocess.Process | None = None) -> list[HourAccount]:
    return [
        page
        for page in await list_accounts(rig.connection, LONG_AGO)
        if page.model == rig.model and (worker is None or f"-{worker.pid}-" in page.worker)
    ]


def set_price(rig: Rig) -> None:
    settings = rig.folder / "headrace.toml"
    settings.write_text(f"[scaler]\ncpu_price_per_s = {PRICE_PER_S}\n")
    rig.environment["HEADRACE_CONFIG"] = str(settings)


async def end(worker: asyncio.subprocess.Process) -> None:
    worker.send_signal(signal.SIGTERM)
    async with asyncio.timeout(DEADLINE_S):
        assert await worker.wait() == 0


def total(pages: Sequence[HourAccount], what: str) -> float:
    return sum(getattr(page.account, what) for page in pages)


async def test_jobs_idle_time_and_starts_add_up_to_the_uptime_of_the_process(rig: Rig) -> None:
    """Its bounds need no guess: the process began between the two moments around its start, was there until it was
    told to stop, and accounts until shortly before it was gone."""
    set_price(rig)
    await rig.add_model(batching=Batching(max_size=3))
    before = time.monotonic()
    worker = await rig.spawn_worker()
    spawned = time.monotonic()
    await rig.until(lambda status: status.engines[0].state is EngineState.READY)
    job_ids = [await rig.submit(steps=4, step_s=0.02 * (1 + number % 3)) for number in range(7)]
    job_ids += [await rig.submit(behaviour="error", steps=2, step_s=0.03) for _ in range(2)]
    job_ids += [await rig.submit(behaviour="crash_once", steps=2, step_s=0.03)]
    results = [await rig.result(job_id) for job_id in job_ids]
    told = time.monotonic()
    await end(worker)
    gone = time.monotonic()

    assert [result.status for result in results].count(Status.FAILED) == 2
    assert results[-1].attempts >= 2, "its engine died under it: it was started again"
    pages = await accounts(rig, worker)
    assert pages[-1].ended
    uptime_s = sum(total(pages, part) for part in ("starting_s", "busy_s", "idle_s"))
    assert told - spawned - TICKS_S <= uptime_s <= gone - before + TICKS_S
    jobs_s = sum(result.usage.engine_s for result in results)
    assert jobs_s == pytest.approx(total(pages, "busy_s"), abs=1e-6)
    jobs_cost = sum(result.usage.cost or 0.0 for result in results)
    assert jobs_cost == pytest.approx(total(pages, "busy_s") * PRICE_PER_S, abs=1e-6)
    idle_cost = (total(pages, "starting_s") + total(pages, "idle_s")) * PRICE_PER_S
    assert jobs_cost + idle_cost == pytest.approx(uptime_s * PRICE_PER_S, abs=1e-6)
    assert all(result.usage.engine_s > 0 and result.usage.gpu_s == 0 for result in results)
    longest_s = max(result.timings.run_s for result in results)
    assert min(result.usage.engine_s for result in results) < longest_s, "jobs of a batch share it"
    assert {page.slot for page in pages} == {SlotKind.CPU}
    assert sum(page.succeeded for page in pages) == 8
    assert sum(page.tenants[TENANT].runs for page in pages if page.tenants) == total(pages, "jobs") >= 11


async def test_an_engine_that_is_started_again_is_starting_and_one_that_waits_is_idle(rig: Rig) -> None:
    load_s = 0.5
    await rig.add_model(options={"load_s": load_s})
    worker = await rig.start_worker()
    await rig.run()
    once = (await rig.until(lambda status: status.engines[0].account.jobs == 1)).engines[0].account
    await rig.run()
    twice = (await rig.until(lambda status: status.engines[0].account.jobs == 2)).engines[0].account
    assert twice.starting_s == once.starting_s >= load_s
    assert twice.idle_s > once.idle_s
    await rig.run(behaviour="crash_once")
    await end(worker)
    assert total(await accounts(rig, worker), "starting_s") >= once.starting_s + load_s
    assert total(await accounts(rig, worker), "jobs") == 4


async def test_a_job_is_out_of_the_engine_when_the_engine_says_so_and_not_when_its_story_was_told(
    tmp_path: Path,
) -> None:
    """Its events wait for the broker, one after the other; the engine waits for nothing."""
    spec = ModelSpec("echo", Task.SYNTHETIC, EngineKind.SYNTHETIC)
    host = EngineHost(spec, tmp_path, SystemClock(), random.Random(1))
    supervising = asyncio.create_task(host.supervise())
    async with asyncio.timeout(DEADLINE_S):
        await host.ready.wait()
        asked = msgspec.Raw(msgspec.msgpack.encode(SyntheticInput(steps=3, step_s=0.01)))
        frames = host.open(Run("run", 1, asked, {}, str(tmp_path)))
        while host.account.total.jobs == 0:
            await asyncio.sleep(0.01)
    assert frames.qsize() > 3, "nobody has read its frames yet"
    host.close("run")
    assert host.account.total.jobs == 1
    supervising.cancel()
    await asyncio.wait([supervising])


async def test_two_models_on_one_worker_cost_one_worker(rig: Rig) -> None:
    set_price(rig)
    spec = await rig.add_model()
    other = f"{rig.model}-too"
    await add_model(rig.connection, msgspec.structs.replace(spec, name=other))
    before = time.monotonic()
    worker = await rig.spawn_worker("--model", other)
    spawned = time.monotonic()
    await rig.until(lambda status: all(engine.state is EngineState.READY for engine in status.engines))
    await rig.run(steps=2, step_s=0.05)
    told = time.monotonic()
    await end(worker)
    gone = time.monotonic()
    pages = [page for page in await list_accounts(rig.connection, LONG_AGO) if f"-{worker.pid}-" in page.worker]
    assert {page.model for page in pages} == {rig.model, other}
    cost = sum(page.account.uptime_s * page.price_per_s for page in pages)
    assert (told - spawned - TICKS_S) * PRICE_PER_S <= cost <= (gone - before + TICKS_S) * PRICE_PER_S
    assert sum(page.account.busy_s for page in pages if page.model == other) == 0


async def test_a_job_that_moved_costs_what_it_took_on_both_workers(rig: Rig) -> None:
    set_price(rig)
    await rig.add_model()
    first = await rig.start_worker("--grace-s", "0.05")
    job_id = await rig.submit(steps=30, step_s=0.05)
    await rig.until_running(job_id)
    await end(first)
    second = await rig.start_worker()
    result = await rig.result(job_id)
    await end(second)
    shares = [total(await accounts(rig, worker), "busy_s") for worker in (first, second)]
    assert all(share > 0 for share in shares)
    assert result.usage.engine_s == pytest.approx(sum(shares), abs=1e-6)
    assert result.usage.cost == pytest.approx(sum(shares) * PRICE_PER_S, abs=1e-6)
    assert result.attempts == 1, "a shutdown costs money and no attempt"


async def test_a_canceled_job_costs_what_it_took_before_it_stopped(rig: Rig) -> None:
    set_price(rig)
    await rig.add_model()
    worker = await rig.start_worker()
    job_id = await rig.submit(steps=100, step_s=0.05)
    await rig.until_running(job_id)
    await rig.cancel(job_id)
    await rig.until(lambda status: not status.engines[0].running)
    canceled: Result = await rig.result(job_id)
    await end(worker)
    pages = await accounts(rig, worker)
    assert canceled.usage.cost is None, "its result was there before it stopped"
    assert sum(page.tenants[TENANT].busy_s for page in pages if page.tenants) == pytest.approx(total(pages, "busy_s"))
    assert total(pages, "busy_s") > 0
    assert sum(page.succeeded for page in pages) == 0


async def test_a_killed_worker_has_told_until_shortly_before(rig: Rig) -> None:
    await rig.add_model()
    worker = await rig.start_worker()
    async with asyncio.timeout(DEADLINE_S):
        while not await accounts(rig, worker):
            await asyncio.sleep(0.05)
    worker.kill()
    await worker.wait()
    [*_, last] = await accounts(rig, worker)
    assert not last.ended
    assert last.account.starting_s > 0
    assert last.price_per_s == 0, "none is set"
