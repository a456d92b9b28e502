"""Waiting for jobs and following them: order, outages, cleaning up."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from staged_worker import DRAW, StagedWorker

from headrace import BrokerUnavailable, Client, Settings, waiting
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import UndecodableMessage
from headrace_contracts.event import Progress, Started
from headrace_contracts.names import Stream
from headrace_contracts.result import Result
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage import results
from headrace_storage.connection import Connection
from headrace_storage.registry import add_model
from headrace_storage.results import wait_result
from headrace_storage.topology import ensure_topology

pytestmark = pytest.mark.asyncio(loop_scope="module")
PICTURE = {"images": [], "seeds": [], "width": 8, "height": 8}


async def test_every_event_before_the_end_is_given(client: Client, worker: StagedWorker) -> None:
    """The result overtakes events on their way; following must not end before they are there."""
    for _ in range(20):
        job = await client.submit("draw", prompt="star")
        following = asyncio.create_task(steps_of(job))
        await worker.start(job)
        for step in range(30):
            await worker.progress(job, step, 30)
        await worker.succeed(job, PICTURE)
        assert await following == list(range(30))


async def test_a_result_that_is_stored_while_we_subscribe_is_not_overlooked(
    client: Client, worker: StagedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is published before the subscription and stored after the first look: nothing would wake the waiter."""
    monkeypatch.setattr(results, "LONGEST_LOOK_S", 600.0)
    for _ in range(300):
        job = client.handle("draw", uuid4().hex)
        async with asyncio.timeout(30):
            await asyncio.gather(job.result(), worker.succeed(job, PICTURE))


async def test_a_long_history_is_given_whole_though_the_job_has_ended(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="star")
    for step in range(3000):
        await worker.progress(job, step, 3000)
    await worker.succeed(job, PICTURE)
    assert await steps_of(job) == list(range(3000))


async def steps_of(job: object) -> list[float]:
    async with asyncio.timeout(30):
        return [event.step async for event in job.events() if isinstance(event, Progress)]  # type: ignore[attr-defined]


async def test_events_of_another_job_are_not_given(client: Client, worker: StagedWorker) -> None:
    job, other = await client.submit("draw", prompt="star"), await client.submit("draw", prompt="star")
    await worker.start(other)
    await worker.start(job)
    await worker.succeed(job, PICTURE)
    assert [event.job_id async for event in job.events()] == [job.id]


async def test_an_event_of_an_unknown_kind_is_passed_over(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="star")
    subject = f"events.default.draw.{job.id}"
    await worker.connection.nc.publish(f"{subject}.dreamed", b'{"event":"dreamed","of":"sheep"}')
    await worker.connection.nc.publish(f"{subject}.log", b"\xff\xff")
    await worker.start(job)
    await worker.succeed(job, PICTURE)
    assert [type(event) for event in [event async for event in job.events()]] == [Started]


async def test_whoever_follows_learns_that_what_ended_the_job_is_no_result(
    client: Client, worker: StagedWorker
) -> None:
    job = await client.submit("draw", prompt="star")
    await worker.start(job)
    await worker.connection.js.publish(f"results.default.draw.{job.id}", b"\xff\xff")
    with pytest.raises(UndecodableMessage):
        _ = [event async for event in job.events()]
    with pytest.raises(UndecodableMessage):
        _ = [line async for line in job.follow_logs()]


async def test_a_job_that_ended_without_events_is_followed_to_its_end(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="star")
    await worker.succeed(job, PICTURE)
    async with asyncio.timeout(30):
        assert [event async for event in job.events()] == []


async def test_who_stops_following_leaves_nothing_behind(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="star")
    await worker.start(job)
    before = len(asyncio.all_tasks())
    events = job.events()
    assert isinstance(await anext(events), Started)
    assert len(asyncio.all_tasks()) > before
    async with asyncio.timeout(10):
        await events.aclose()
        while len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0.01)


async def test_a_result_in_json_is_read_as_well(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("write", prompt="x")
    await worker.succeed(job, {"text": "é", "finish_reason": "stop", "seed": 1}, encoding=Encoding.JSON)
    result = await job.result(30)
    assert result.text == "é"
    assert result.as_json()["output"] == {"text": "é", "finish_reason": "stop", "seed": 1}


async def test_a_broker_that_restarts_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noticed = asyncio.Event()

    async def watched(*arguments: Any) -> Result:
        try:
            return await wait_result(*arguments)
        except BrokerUnavailable:
            noticed.set()
            raise

    monkeypatch.setattr(waiting, "wait_result", watched)
    async with NatsServer(tmp_path, sync_always=False) as server:
        settings = Settings(nats=NatsSettings(url=server.url))
        async with Connection(settings.nats) as connection, Client(settings) as client:
            await ensure_topology(connection)
            await add_model(connection, DRAW)
            job = await client.submit("draw", prompt="star")
            worker = StagedWorker(connection)
            for step in range(5):
                await worker.progress(job, step, 6)
            events = job.events()
            assert [(await anext(events)).job_id for _ in range(5)] == [job.id] * 5
            await server.kill()
            result = asyncio.create_task(job.result(timeout_s=60))
            async with asyncio.timeout(30):
                await noticed.wait()

            await server.start()
            assert (await job.status()).state == "queued"  # though the stream of events is gone
            assert (await client.find(job.id)).model == "draw"
            await ensure_topology(connection)
            await worker.progress(job, 5, 6)
            await worker.succeed(job, PICTURE)

            assert (await result).status == "succeeded"
            assert [event.step async for event in events if isinstance(event, Progress)] == [5]

            monkeypatch.setattr(waiting, "OUTAGE_S", 0.0)
            await server.kill()
            with pytest.raises(BrokerUnavailable):
                await job.result(timeout_s=60)
            await server.start()


async def test_a_broker_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with NatsServer(tmp_path, sync_always=False) as server:
        url = server.url
    with pytest.raises(BrokerUnavailable, match=f"no NATS server with JetStream at {url}"):
        async with Client(Settings(nats=NatsSettings(url=url))):
            pass


async def test_a_client_that_is_not_open_says_so(settings: Settings) -> None:
    client = Client(settings)
    with pytest.raises(RuntimeError, match="async with"):
        await client.submit("draw", prompt="star")
    async with client:
        assert await client.models()
    async with client:  # and again
        assert await client.models()


async def test_the_broker_forgets_followers_and_confines_them(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="star")
    await worker.start(job)
    events = job.events()
    await anext(events)
    consumers = await client.connection.js.consumers_info(Stream.EVENTS)
    assert f"events.default.draw.{job.id}.>" in [consumer.config.filter_subject for consumer in consumers]
    assert all(not consumer.config.durable_name for consumer in consumers)
    assert all(consumer.config.inactive_threshold for consumer in consumers)
    await events.aclose()


async def test_following_goes_on_after_a_reconnect_and_repeats_nothing(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="star")
    following = asyncio.create_task(steps_of(job))
    for step in range(5):
        await worker.progress(job, step, 10)
    reconnected = asyncio.Event()
    client.connection.on_reconnect(reconnected.set)

    await client.connection.nc.force_reconnect()

    async with asyncio.timeout(30):
        await reconnected.wait()
    for step in range(5, 10):
        await worker.progress(job, step, 10)
    await worker.succeed(job, PICTURE)
    assert await following == list(range(10))
