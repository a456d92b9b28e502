"""Results: the first one is the end of the job, for everybody and for ever."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
import pytest
import pytest_asyncio

from headrace_contracts.codec import Encoding
from headrace_contracts.errors import BrokerUnavailable, UndecodableMessage
from headrace_contracts.result import Result, Status
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage import publishing
from headrace_storage.connection import Connection
from headrace_storage.results import commit_result, get_result, wait_result
from headrace_storage.topology import ensure_topology

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest_asyncio.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await ensure_topology(connection)
        yield connection


def a_result(status: Status = Status.SUCCEEDED, job_id: str | None = None, attempts: int = 1) -> Result:
    return Result(job_id or uuid.uuid4().hex, "m", "1", status, msgspec.Raw(b"null"), attempts, NOW, NOW)


async def test_of_fifty_racers_exactly_one_wins(connection: Connection) -> None:
    racers = [a_result(job_id="race", attempts=n) for n in range(50)]
    commits = await asyncio.gather(*(commit_result(connection, "t", r, Encoding.JSON) for r in racers))
    [winner] = [racer for racer, commit in zip(racers, commits, strict=True) if commit.won]
    assert {commit.result.attempts for commit in commits} == {winner.attempts}, "losers read the winner"


async def test_committing_the_same_result_again_is_still_a_win(connection: Connection) -> None:
    """As after a receipt that was lost: the retry meets its own first try."""
    result = a_result()
    assert (await commit_result(connection, "t", result, Encoding.JSON)).won
    assert (await commit_result(connection, "t", result, Encoding.JSON)).won


async def test_a_result_reads_back_in_its_encoding(connection: Connection) -> None:
    for encoding in Encoding:
        result = msgspec.structs.replace(
            a_result(), output=msgspec.Raw(b"null" if encoding is Encoding.JSON else b"\xc0")
        )
        await commit_result(connection, "t", result, encoding)
        assert (await get_result(connection, "t", "m", result.id)).id == result.id


async def test_there_is_no_result_before_there_is_one(connection: Connection) -> None:
    assert await get_result(connection, "t", "m", "never") is None


async def test_a_waiter_gets_a_result_that_comes_later_and_one_that_was_there(connection: Connection) -> None:
    result = a_result()
    waiting = asyncio.create_task(wait_result(connection, "t", "m", result.id))
    await asyncio.sleep(0)
    await commit_result(connection, "t", result, Encoding.JSON)
    async with asyncio.timeout(20):
        assert (await waiting).id == result.id
        assert (await wait_result(connection, "t", "m", result.id)).id == result.id


async def test_something_else_on_the_subject_is_no_result(connection: Connection) -> None:
    await connection.js.publish("results.t.m.garbage", b'{"id": 1}')
    with pytest.raises(UndecodableMessage, match="not a valid result"):
        await get_result(connection, "t", "m", "garbage")


async def test_a_commit_through_a_restart_of_the_broker_wins_once(
    connection: Connection, nats_server: NatsServer
) -> None:
    await nats_server.kill()
    result = a_result()
    committing = asyncio.create_task(commit_result(connection, "t", result, Encoding.JSON))
    await asyncio.sleep(0)
    await nats_server.start()
    async with asyncio.timeout(30):
        assert (await committing).won
        assert (await get_result(connection, "t", "m", result.id)).id == result.id


async def test_without_a_broker_a_publish_gives_up_at_its_deadline(
    connection: Connection, nats_server: NatsServer
) -> None:
    await nats_server.kill()
    try:
        with pytest.raises(BrokerUnavailable):
            await publishing.publish(connection, "results.t.m.nobody", b"{}", {}, deadline_s=0.1)
    finally:
        await nats_server.start()
