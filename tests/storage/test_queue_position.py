"""Lanes as the broker tells them, and how many jobs are before one."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import pytest_asyncio

from headrace_contracts.codec import Encoding
from headrace_contracts.job import JobBody
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.names import Lane, Stream, consumer_name
from headrace_contracts.settings import NatsSettings
from headrace_contracts.tasks.registry import Task
from headrace_local.nats_server import NatsServer
from headrace_storage.auth.plan import IngressLimits
from headrace_storage.connection import Connection
from headrace_storage.ingress import ensure_ingress
from headrace_storage.jobs import Receipt, submit_job
from headrace_storage.lanes import lanes_of_all, lanes_of_model, oldest_waiting
from headrace_storage.queue_position import find_in_ingress, jobs_ahead
from headrace_storage.registry import add_model
from headrace_storage.topology import ensure_topology

BODY = JobBody(msgspec.Raw(b"{}"))


@pytest_asyncio.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await ensure_topology(connection)
        yield connection


@pytest_asyncio.fixture
async def model(connection: Connection) -> str:
    name = f"m-{uuid.uuid4().hex[:8]}"
    await add_model(connection, ModelSpec(name, Task.SYNTHETIC, EngineKind.SYNTHETIC))
    return name


async def submit(connection: Connection, model: str, tenant: str = "acme", lane: Lane = Lane.NORMAL) -> Receipt:
    return await submit_job(connection, tenant, model, lane, BODY, Encoding.JSON)


async def deliver(connection: Connection, model: str, count: int, lane: Lane = Lane.NORMAL) -> None:
    """Have the broker lend jobs, as to a worker."""
    puller = await connection.js.pull_subscribe_bind(consumer_name(model, lane), Stream.JOBS)
    assert len(await puller.fetch(count, timeout=5)) == count
    await puller.unsubscribe()


async def test_jobs_before_one_are_those_of_its_lane_that_wait(connection: Connection, model: str) -> None:
    other = f"{model}-x"
    await add_model(connection, ModelSpec(other, Task.SYNTHETIC, EngineKind.SYNTHETIC))
    places = []
    for number in range(6):
        places.append((await submit(connection, model, f"tenant-{number % 2}")).sequence)
        await submit(connection, model, lane=Lane.HIGH)
        await submit(connection, other)
    await deliver(connection, model, 2)

    high, normal, low = await lanes_of_model(connection, model)

    assert (high.waiting, high.held) == (6, 0)
    assert (normal.waiting, normal.held, normal.delivered) == (4, 2, places[1])
    assert (low.waiting, low.held, low.delivered) == (0, 0, 0)
    ahead = [await jobs_ahead(connection, normal, sequence) for sequence in places]
    assert ahead == [None, None, 0, 1, 2, 3]


async def test_one_request_tells_the_lanes_of_every_model(connection: Connection, model: str) -> None:
    await submit(connection, model, lane=Lane.LOW)
    found = await lanes_of_all(connection)
    assert found[model] == await lanes_of_model(connection, model)
    assert [lane.lane for lane in found[model]] == list(Lane)


async def test_the_oldest_waiting_job_is_the_first_that_was_never_delivered(connection: Connection, model: str) -> None:
    places = [(await submit(connection, model)).sequence for _ in range(3)]
    await deliver(connection, model, 1)
    normal = (await lanes_of_model(connection, model))[1]
    oldest = await oldest_waiting(connection, normal)
    assert oldest is not None
    assert oldest.sequence == places[1]
    await deliver(connection, model, 2)
    assert await oldest_waiting(connection, (await lanes_of_model(connection, model))[1]) is None


async def test_a_pause_is_told_while_it_lasts(connection: Connection, model: str) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    name = consumer_name(model, Lane.NORMAL)
    pause = f'{{"pause_until":"{until.isoformat()}"}}'.encode()
    await connection.api(f"CONSUMER.PAUSE.{Stream.JOBS}.{name}", pause)
    assert [lane.paused_until for lane in await lanes_of_model(connection, model)] == [None, until, None]
    await connection.api(f"CONSUMER.PAUSE.{Stream.JOBS}.{name}", b"{}")
    assert (await lanes_of_model(connection, model))[1].paused_until is None


async def test_a_pause_that_is_over_is_none(connection: Connection, model: str) -> None:
    """The server keeps its date."""
    name = consumer_name(model, Lane.NORMAL)
    until = datetime.now(UTC) + timedelta(seconds=0.3)
    await connection.api(f"CONSUMER.PAUSE.{Stream.JOBS}.{name}", f'{{"pause_until":"{until.isoformat()}"}}'.encode())
    async with asyncio.timeout(10):
        while (await lanes_of_model(connection, model))[1].paused_until is not None:
            await asyncio.sleep(0.02)
    info = await connection.api(f"CONSUMER.INFO.{Stream.JOBS}.{name}")
    assert info["config"]["pause_until"]


async def test_a_model_without_consumers_has_no_lanes(connection: Connection) -> None:
    assert await lanes_of_model(connection, "nowhere") == ()


@pytest.mark.parametrize("ahead", [0, 2])
async def test_a_job_is_found_in_its_ingress_stream(connection: Connection, ahead: int) -> None:
    tenant = f"t{uuid.uuid4().hex[:8]}"
    assert await find_in_ingress(connection, tenant, "mine") is None
    await ensure_ingress(connection, tenant, IngressLimits())
    for _ in range(ahead):
        await submit_job(connection, tenant, "draw", Lane.HIGH, BODY, Encoding.JSON, ingress=True)
    await submit_job(connection, tenant, "draw", Lane.LOW, BODY, Encoding.JSON, "mine", ingress=True)
    found = await find_in_ingress(connection, tenant, "mine")
    assert found is not None
    assert (found.model, found.ahead) == ("draw", ahead)
    assert await find_in_ingress(connection, tenant, "another") is None
