"""A model's entry is changed by compare-and-set: two operators at once lose nothing."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import UnknownModel
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.scaling import Scaling
from headrace_contracts.settings import NatsSettings
from headrace_contracts.tasks.registry import Task
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.leadership import Leadership, leader_of
from headrace_storage.registry import add_model, get_model, remove_model, update_model
from headrace_storage.topology import ensure_topology

replace = msgspec.structs.replace


@pytest_asyncio.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        yield connection


@pytest_asyncio.fixture
async def model(connection: Connection) -> str:
    await ensure_topology(connection)
    name = f"m-{uuid.uuid4().hex[:8]}"
    await add_model(connection, ModelSpec(name, Task.SYNTHETIC, EngineKind.SYNTHETIC))
    return name


def with_scaling(spec: ModelSpec, **changes: object) -> ModelSpec:
    return replace(spec, scaling=replace(spec.scaling, **changes))


async def test_nobody_leads_on_a_broker_without_buckets(connection: Connection) -> None:
    assert await leader_of(connection, "scaler") is None


async def test_many_operators_at_once_lose_no_change(connection: Connection, model: str) -> None:
    calls = 0

    def one_more(spec: ModelSpec) -> ModelSpec:
        nonlocal calls
        calls += 1
        return with_scaling(spec, max_workers=spec.scaling.max_workers + 1)

    await asyncio.gather(*(update_model(connection, model, one_more) for _ in range(8)))

    assert (await get_model(connection, model)).scaling.max_workers == 1 + 8
    assert calls > 8  # they did get into each other's way


async def test_the_second_operator_sees_the_first_ones_change(connection: Connection, model: str) -> None:
    """The first change is stored between the read and the write of the second."""
    seen: list[Scaling] = []

    def second(spec: ModelSpec) -> ModelSpec:
        seen.append(spec.scaling)
        return with_scaling(spec, buffer_workers=2)

    async with Connection(NatsSettings(url=connection.url)) as other:
        key_value = connection.js.key_value

        async def after_the_first(bucket: str) -> object:
            if len(seen) == 1:
                await update_model(other, model, lambda spec: with_scaling(spec, max_workers=5))
            return await key_value(bucket)

        connection.js.key_value = after_the_first
        try:
            before, after = await update_model(connection, model, second)
        finally:
            connection.js.key_value = key_value

    assert [scaling.max_workers for scaling in seen] == [1, 5]
    assert before.scaling == Scaling(max_workers=5)
    assert after == await get_model(connection, model)
    assert after.scaling == Scaling(max_workers=5, buffer_workers=2)


async def test_a_change_that_is_refused_or_changes_nothing_is_not_written(connection: Connection, model: str) -> None:
    def refused(spec: ModelSpec) -> ModelSpec:
        raise ValueError(spec.name)

    bucket = await connection.js.key_value("MODELS")
    revision = (await bucket.get(model)).revision
    with pytest.raises(ValueError, match=model):
        await update_model(connection, model, refused)
    await update_model(connection, model, lambda spec: spec)
    assert (await bucket.get(model)).revision == revision


async def test_a_model_that_is_not_there_is_not_made(connection: Connection, model: str) -> None:
    await remove_model(connection, model)
    with pytest.raises(UnknownModel):
        await update_model(connection, model, lambda spec: with_scaling(spec, max_workers=5))


async def test_the_leader_is_told_while_it_leads(connection: Connection, model: str) -> None:
    leadership = Leadership(connection, "scaler", "host-1", SystemClock())
    assert await leader_of(connection, "scaler") is None
    assert await leadership.acquire()
    assert await leader_of(connection, "scaler") == "host-1"
    await leadership.release()
    assert await leader_of(connection, "scaler") is None
