"""Drawing jobs: what waits now, what comes next, and nothing lost on the way."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from headrace_contracts.codec import Encoding
from headrace_contracts.job import JobBody
from headrace_contracts.names import Lane, Stream, consumer_name
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.jobs import submit_job
from headrace_storage.lanes import lanes_of_model
from headrace_storage.puller import JobPuller
from headrace_storage.topology import ensure_consumers, ensure_topology

BODY = JobBody(msgspec.Raw(b"{}"))


class Queue:
    def __init__(self, connection: Connection, model: str) -> None:
        self.connection, self.model = connection, model
        self.puller = JobPuller(connection, model)

    async def submit(self, lane: Lane = Lane.NORMAL, job_id: str | None = None) -> str:
        return (await submit_job(self.connection, "t", self.model, lane, BODY, Encoding.JSON, job_id)).job_id

    async def held(self) -> int:
        return sum(lane.held for lane in await lanes_of_model(self.connection, self.model))

    async def until_asked(self, lane: Lane) -> None:
        """Wait until the server has our request for the next job of a lane."""
        async with asyncio.timeout(20):
            while not await self._requests(lane):
                await asyncio.sleep(0.005)

    async def until_not_asked(self, lane: Lane) -> None:
        """Wait until the server has forgotten our request."""
        async with asyncio.timeout(20):
            while await self._requests(lane):
                await asyncio.sleep(0.005)

    async def _requests(self, lane: Lane) -> int:
        info = await self.connection.js.consumer_info(Stream.JOBS, consumer_name(self.model, lane))
        return info.num_waiting or 0


@pytest_asyncio.fixture
async def jobs(nats_server: NatsServer) -> AsyncIterator[Queue]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await ensure_topology(connection)
        queue = Queue(connection, f"m-{uuid.uuid4().hex[:8]}")
        await ensure_consumers(connection, queue.model)
        yield queue


async def test_take_gets_what_waits_and_does_not_wait(jobs: Queue) -> None:
    assert await jobs.puller.take(Lane.NORMAL, 3) == []
    for _ in range(5):
        await jobs.submit()
    assert len(await jobs.puller.take(Lane.NORMAL, 3)) == 3
    assert len(await jobs.puller.take(Lane.NORMAL, 3)) == 2
    assert await jobs.puller.take(Lane.HIGH, 3) == []


@pytest.mark.parametrize("lane", Lane)
async def test_wait_gets_the_next_job_of_any_lane(jobs: Queue, lane: Lane) -> None:
    waiting = asyncio.create_task(jobs.puller.wait())
    await jobs.until_asked(lane)
    job_id = await jobs.submit(lane)
    async with asyncio.timeout(20):
        [delivery] = await waiting
    assert (delivery.lane, f"seq-{delivery.stream_sequence}", delivery.num_delivered) == (lane, job_id, 1)


async def test_after_a_wait_nothing_is_asked_for_any_more(jobs: Queue) -> None:
    """A request that stayed open would take a job from a worker that is idle."""
    waiting = asyncio.create_task(jobs.puller.wait())
    await jobs.until_asked(Lane.LOW)
    await jobs.submit(Lane.HIGH)
    await waiting
    await jobs.until_not_asked(Lane.LOW)
    await jobs.submit(Lane.LOW)
    await jobs.submit(Lane.NORMAL)
    assert [lane.waiting for lane in await lanes_of_model(jobs.connection, jobs.model)] == [0, 1, 1]


async def test_no_job_is_lost_while_waits_end_and_others_arrive(jobs: Queue) -> None:
    """A job on its way to us as we unsubscribe would stay with nobody until its lease of 30 s ran out.

    The server may deliver such a job a second time at once, so the delivery count is not asserted.
    """
    total = 300
    submitting = asyncio.create_task(submit_all(jobs, total))
    seen: list[int] = []
    async with asyncio.timeout(20):
        while len(seen) < total:
            for delivery in await jobs.puller.wait():
                seen.append(delivery.stream_sequence)
                await delivery.ack()
    await submitting
    assert len(set(seen)) == total


async def test_a_canceled_wait_loses_no_job(jobs: Queue) -> None:
    """Each job is kept by the canceled call or comes again at once: a lost one would come after its lease of 30 s."""
    async with asyncio.timeout(25):
        for attempt in range(50):
            waiting = asyncio.create_task(jobs.puller.wait())
            await jobs.until_asked(Lane.NORMAL)
            submitting = asyncio.create_task(jobs.submit())
            await asyncio.sleep(attempt * 0.00005)  # the cancel comes a little later each time
            waiting.cancel()
            await asyncio.wait([waiting, submitting])
            deliveries = await jobs.puller.close() if waiting.cancelled() else waiting.result()
            jobs.puller = JobPuller(jobs.connection, jobs.model)
            while not deliveries:
                deliveries = await jobs.puller.wait()
            for delivery in deliveries:
                await delivery.ack()
    assert await jobs.held() == 0


async def test_once_it_is_told_to_stop_nothing_is_waited_for(jobs: Queue) -> None:
    """Also when that comes between two calls: a wait that began then would last for 30 s."""
    jobs.puller.stop_waiting()
    async with asyncio.timeout(5):
        assert await jobs.puller.wait() == []
        assert await jobs.puller.take(Lane.HIGH, 1) == []
        assert await jobs.puller.close() == []


async def test_a_wait_survives_a_restart_of_the_broker(jobs: Queue, nats_server: NatsServer) -> None:
    waiting = asyncio.create_task(jobs.puller.wait())
    await jobs.until_asked(Lane.NORMAL)
    await nats_server.kill()
    await nats_server.start()
    job_id = await jobs.submit(job_id=uuid.uuid4().hex)
    async with asyncio.timeout(20):
        deliveries = await waiting
        while not deliveries:
            deliveries = await jobs.puller.wait()
    assert deliveries[0].headers["Nats-Msg-Id"] == job_id


async def test_a_job_given_back_comes_again_at_once_or_after_its_delay(jobs: Queue) -> None:
    await jobs.submit()
    [first] = await jobs.puller.take(Lane.NORMAL, 1)
    await first.nak()
    [second] = await jobs.puller.take(Lane.NORMAL, 1)
    assert second.num_delivered == 2
    await second.nak(delay_s=0.2)
    assert await jobs.puller.take(Lane.NORMAL, 1) == []
    async with asyncio.timeout(20):
        [third] = await jobs.puller.wait()
    await third.ack()
    assert await jobs.held() == 0


async def submit_all(jobs: Queue, total: int) -> None:
    for number in range(total):
        await jobs.submit(list(Lane)[number % 3])
        if number % 7 == 0:
            await asyncio.sleep(0.001)
