"""Whoever starts workers hears of each stored job at once, and of nothing in it."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest_asyncio
from nats.aio.msg import Msg

from headrace_contracts.codec import Encoding
from headrace_contracts.job import JobBody
from headrace_contracts.names import Lane
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.arrivals import Arrival, hearing_arrivals
from headrace_storage.connection import Connection
from headrace_storage.jobs import Receipt, submit_job
from headrace_storage.topology import ensure_topology

DEADLINE_S = 10.0
BODY = JobBody(input=msgspec.Raw(b'{"prompt": "a secret"}'))


@pytest_asyncio.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await ensure_topology(connection)
        yield connection


async def submit(connection: Connection, lane: Lane = Lane.NORMAL, job_id: str | None = None) -> Receipt:
    return await submit_job(connection, "acme", "m", lane, BODY, Encoding.JSON, job_id)


async def test_a_stored_job_is_heard_of_with_its_place_and_time(connection: Connection) -> None:
    heard: asyncio.Queue[Arrival] = asyncio.Queue()
    async with hearing_arrivals(connection, heard.put_nowait):
        receipt = await submit(connection, Lane.HIGH)
        async with asyncio.timeout(DEADLINE_S):
            arrival = await heard.get()
    stored = await connection.js.get_msg("JOBS", seq=receipt.sequence)
    assert (arrival.model, arrival.lane, arrival.sequence) == ("m", Lane.HIGH, receipt.sequence)
    assert stored.time is not None
    assert abs((arrival.stored_at - stored.time).total_seconds()) < 1e-3


async def test_a_job_that_was_not_stored_again_is_not_heard_of_again(connection: Connection) -> None:
    heard: asyncio.Queue[Arrival] = asyncio.Queue()
    async with hearing_arrivals(connection, heard.put_nowait):
        first = await submit(connection, job_id="same")
        assert (await submit(connection, job_id="same")).duplicate
        last = await submit(connection, job_id="other")
        async with asyncio.timeout(DEADLINE_S):
            assert [(await heard.get()).sequence for _ in range(2)] == [first.sequence, last.sequence]


async def test_nothing_of_the_job_is_told(connection: Connection) -> None:
    messages: asyncio.Queue[Msg] = asyncio.Queue()
    subscription = await connection.nc.subscribe("arrivals.>", cb=messages.put)
    await connection.nc.flush()
    await submit(connection)
    async with asyncio.timeout(DEADLINE_S):
        message = await messages.get()
    await subscription.unsubscribe()
    assert message.data == b""
    assert "secret" not in str(message.headers)


async def test_outside_nothing_is_heard(connection: Connection) -> None:
    heard: list[Arrival] = []
    async with hearing_arrivals(connection, heard.append):
        pass
    await submit(connection)
    await connection.nc.flush()
    assert heard == []
