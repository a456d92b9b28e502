"""A worker that starves connects anew, and then ends: on a real broker, with a worker that never gets a job."""

import asyncio
from datetime import timedelta

import pytest
from rig import DEADLINE_S, TENANT, Rig

from headrace_contracts.clock import SystemClock
from headrace_contracts.names import Lane, Stream, consumer_name
from headrace_storage.lanes import lanes_of_model
from headrace_workers import watchdog
from headrace_workers.watchdog import Starving, watch_for_starving


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOOK_EVERY_S", 0.05)


async def test_a_worker_that_gets_nothing_though_jobs_wait_reconnects_and_then_ends(rig: Rig) -> None:
    await rig.add_model()
    await rig.submit()
    reconnected = asyncio.Event()
    rig.connection.on_reconnect(reconnected.set)
    with pytest.raises(Starving, match=f"1 jobs wait for {rig.model}"):
        async with asyncio.timeout(DEADLINE_S):
            await watch_for_starving(rig.connection, rig.model, hungry=lambda: True, arrived=lambda: 0)
    assert reconnected.is_set()
    await rig.connection.js.purge_stream(Stream.JOBS, subject=f"jobs.{TENANT}.{rig.model}.*")


async def deliverable(rig: Rig) -> int:
    return sum(lane.deliverable for lane in await lanes_of_model(rig.connection, rig.model))


async def test_jobs_of_a_paused_lane_starve_nobody(rig: Rig) -> None:
    await rig.add_model()
    await rig.submit()
    assert await deliverable(rig) == 1
    until = (SystemClock().now() + timedelta(hours=1)).isoformat()
    name = consumer_name(rig.model, Lane.NORMAL)
    await rig.connection.js.pause_consumer(Stream.JOBS, name, until)
    assert await deliverable(rig) == 0
    await rig.connection.js.resume_consumer(Stream.JOBS, name)
    assert await deliverable(rig) == 1
    await rig.connection.js.purge_stream(Stream.JOBS, subject=f"jobs.{TENANT}.{rig.model}.*")
