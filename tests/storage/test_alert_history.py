"""What the scaler told, and the ends of jobs: read in few requests, from where the look before stopped."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import pytest_asyncio

from headrace_contracts.alert import Alert, AlertName, AlertState, ScalingDecision, WorkerColdStart
from headrace_contracts.codec import Encoding
from headrace_contracts.heartbeat import ColdStart
from headrace_contracts.result import Result, Status
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage import newest_results
from headrace_storage.alert_history import alerts_since, cold_starts_of, decisions_of, hearing_decisions
from headrace_storage.alerts import publish_alert
from headrace_storage.connection import Connection
from headrace_storage.newest_results import newest_ends
from headrace_storage.results import commit_result
from headrace_storage.topology import ensure_topology

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest_asyncio.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await ensure_topology(connection)
        yield connection


@pytest.fixture
def model() -> str:
    return f"m-{uuid.uuid4().hex[:8]}"


def decision(model: str, target: int) -> ScalingDecision:
    return ScalingDecision(model, NOW, target, 0, 0, "because")


def alert(model: str, state: AlertState) -> Alert:
    return Alert(AlertName.BACKLOG, state, model, NOW, NOW, "many", 7, 0, 1.0, 0, 1)


async def test_the_newest_decision_of_each_model(connection: Connection, model: str) -> None:
    for target in (1, 2):
        await publish_alert(connection, decision(model, target))
    await publish_alert(connection, decision(f"{model}-b", 5))
    await connection.js.publish(f"alerts.decision.{model}-c", b"from the future")
    found = await decisions_of(connection, [model, f"{model}-b", f"{model}-c", f"{model}-d"])
    assert {name: decision.target for name, decision in found.items()} == {model: 2, f"{model}-b": 5}
    assert await decisions_of(connection, []) == {}


async def test_alerts_go_on_where_the_look_before_stopped(connection: Connection, model: str) -> None:
    await publish_alert(connection, alert(model, AlertState.FIRING))
    first = await alerts_since(connection)
    assert first.alerts[-1] == alert(model, AlertState.FIRING)
    await publish_alert(connection, decision(model, 1))
    await publish_alert(connection, alert(model, AlertState.RESOLVED))
    second = await alerts_since(connection, first.next_sequence)
    assert second.alerts == (alert(model, AlertState.RESOLVED),)
    third = await alerts_since(connection, second.next_sequence)
    assert (third.alerts, third.next_sequence) == ((), second.next_sequence)


async def test_cold_starts_of_one_model(connection: Connection, model: str) -> None:
    starts = [WorkerColdStart(model, f"w-{n}", NOW, 0.1, ColdStart(load_s=n), 1.0 + n) for n in range(2)]
    for start in (*starts, WorkerColdStart("another", "w", NOW, 0.1, ColdStart(), 1.0)):
        await publish_alert(connection, start)
    assert await cold_starts_of(connection, model) == tuple(starts)


async def test_the_next_decision_is_heard(connection: Connection, model: str) -> None:
    await publish_alert(connection, decision(model, 1))
    async with hearing_decisions(connection, model) as heard, Connection(NatsSettings(url=connection.url)) as scaler:
        await publish_alert(scaler, decision(model, 2))
        async with asyncio.timeout(10):
            assert (await heard.get()).target == 2
        assert heard.empty()


async def end(connection: Connection, model: str, took_s: float) -> None:
    created_at = datetime.now(UTC) - timedelta(seconds=took_s)
    job_id = uuid.uuid4().hex
    result = Result(job_id, model, "1", Status.SUCCEEDED, msgspec.Raw(b'"x"'), 1, created_at, created_at)
    await commit_result(connection, "acme", result, Encoding.JSON)


async def test_ends_are_read_once_and_the_newest_where_there_are_too_many(
    connection: Connection, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newest_results, "MOST_AT_A_LOOK", 3)
    empty = await newest_ends(connection, None)
    assert (await newest_ends(connection, empty.next_sequence)).skipped == 0
    await end(connection, model, 0)
    assert (await newest_ends(connection, empty.next_sequence)).skipped == 0
    for took_s in (1, 2, 3, 4):
        await end(connection, model, took_s)
    first = await newest_ends(connection, None)
    assert [round(e.took_s) for e in first.ends] == [2, 3, 4]
    assert first.skipped == 0  # nobody looked before, so nothing was missed

    await connection.js.publish(f"results.acme.{model}.hostile", b"no result")
    assert (await newest_ends(connection, first.next_sequence)).ends == ()
    for took_s in (5, 6, 7, 8):
        await end(connection, model, took_s)
    second = await newest_ends(connection, first.next_sequence)
    assert [round(e.took_s) for e in second.ends] == [6, 7, 8]
    assert second.skipped == 2
    third = await newest_ends(connection, second.next_sequence)
    assert (third.ends, third.skipped) == ((), 0)
