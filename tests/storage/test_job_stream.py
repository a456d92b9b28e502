"""Submitting: a receipt means stored, a duplicate is recognised, a full queue says so."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from headrace_contracts.codec import Encoding
from headrace_contracts.errors import JobConflict, MessageTooLarge, QueueFull
from headrace_contracts.job import JobBody
from headrace_contracts.names import Lane
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.jobs import submit_job
from headrace_storage.lanes import lanes_of_model
from headrace_storage.topology import StorageLimits, ensure_consumers, ensure_topology

SMALL = StorageLimits(jobs_per_subject=3)


def body(text: str = "") -> JobBody:
    return JobBody(msgspec.Raw(msgspec.json.encode({"echo": text})))


@pytest_asyncio.fixture
async def connection(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Connection]:
    folder: Path = tmp_path_factory.mktemp("nats")
    async with NatsServer(folder) as server, Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection, SMALL)
        yield connection


async def submit(connection: Connection, model: str, job_body: JobBody, job_id: str | None = None):
    return await submit_job(connection, "t", model, Lane.NORMAL, job_body, Encoding.JSON, job_id)


async def test_a_job_without_an_id_is_named_after_its_receipt(connection: Connection) -> None:
    receipt = await submit(connection, "m", body())
    assert receipt.job_id == f"seq-{receipt.sequence}"


async def test_the_same_job_twice_is_one_job(connection: Connection) -> None:
    first = await submit(connection, "m", body("a"), "same")
    again = await submit(connection, "m", body("a"), "same")
    assert (first.duplicate, again.duplicate, again.sequence) == (False, True, first.sequence)


async def test_a_job_that_has_left_the_queue_is_still_the_same_job(connection: Connection) -> None:
    first = await submit(connection, "m", body("a"), "gone")
    await connection.js.delete_msg("JOBS", first.sequence)
    assert (await submit(connection, "m", body("a"), "gone")).duplicate


async def test_another_job_under_the_same_id_is_a_conflict(connection: Connection) -> None:
    await submit(connection, "m", body("a"), "taken")
    with pytest.raises(JobConflict, match="'taken' already belongs to another job"):
        await submit(connection, "m", body("b"), "taken")
    with pytest.raises(JobConflict):
        await submit(connection, "other", body("a"), "taken")


async def test_a_full_queue_is_an_error_and_loses_nothing(connection: Connection) -> None:
    """Against a stream that would drop its oldest jobs instead, the fourth submit would succeed."""
    await ensure_consumers(connection, "full")
    for _ in range(3):
        await submit(connection, "full", body(), uuid.uuid4().hex)
    with pytest.raises(QueueFull, match=r"jobs\.t\.full\.normal is full \(maximum messages per subject exceeded;"):
        await submit(connection, "full", body(), uuid.uuid4().hex)
    assert sum(lane.waiting for lane in await lanes_of_model(connection, "full")) == 3


async def test_a_job_larger_than_a_message_is_refused_before_it_is_sent(connection: Connection) -> None:
    """The server would close the connection for good."""
    with pytest.raises(MessageTooLarge, match="upload large files"):
        await submit(connection, "m", body("x" * (9 << 20)), "large")
    assert (await submit(connection, "m2", body(), "small")).sequence


async def test_a_job_leaves_room_for_the_reason_it_may_die_of(connection: Connection) -> None:
    """Else it could not be kept as a dead letter, nor be redriven."""
    with pytest.raises(MessageTooLarge):
        await submit(connection, "m", body("x" * ((8 << 20) - 4096)), "too-large")
    assert (await submit(connection, "m", body("x" * ((8 << 20) - 16_384)), "large")).sequence


async def test_a_submit_with_an_id_gets_through_a_restart_of_the_broker(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection)
        await server.kill()
        submitting = asyncio.create_task(submit(connection, "m", body(), "patient"))
        await asyncio.sleep(0)
        await server.start()
        async with asyncio.timeout(30):
            assert (await submitting).job_id == "patient"
