"""What is told of alerts stands in the stream once, whatever happens to the broker or to the leader meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio
from alert_cases import BACKLOG, SETTINGS, seen, view, wall
from blob_servers import freeze, thaw
from nats.js import api

from headrace_contracts.alert import Alert, AlertName, AlertState
from headrace_contracts.names import Stream, alert_subject
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_scaler.alerting.board import MOST_UNTOLD, RETRY_AFTER_S, AlertBoard
from headrace_scaler.alerting.conditions import Judged
from headrace_scaler.alerting.policy import REPEAT_S
from headrace_scaler.policy.observation import ModelView
from headrace_storage.alerts import AlertKind, Told, alert_told, alerts_told, tell_alert
from headrace_storage.connection import Connection
from headrace_storage.publishing import WrongLastSequence
from headrace_storage.reading import messages_from
from headrace_storage.topology import StorageLimits, stream_configs

FIRING, RESOLVED = AlertState
AFTER_S = SETTINGS.alert_after_s


@pytest_asyncio.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await make_stream(connection)
        yield connection


@pytest.fixture
def model() -> str:
    return f"m-{uuid4().hex[:8]}"


async def make_stream(connection: Connection) -> None:
    [config] = [one for one in stream_configs(StorageLimits()) if one.name == Stream.ALERTS]
    await connection.js.add_stream(config)


async def stored(connection: Connection, model: str) -> list[Alert]:
    subject = alert_subject(AlertKind.BACKLOG, model)
    return [
        msgspec.json.decode(message.data, type=Alert)
        async for message in messages_from(connection, Stream.ALERTS, subject)
    ]


async def states(connection: Connection, model: str) -> list[tuple[AlertName, AlertState]]:
    return [(one.alert, one.state) for one in await stored(connection, model)]


async def frozen(server: NatsServer) -> None:
    """Stop a server, and wait until none of its threads runs: one may yet answer what comes in the meantime."""
    assert server.pid is not None
    freeze(server.pid)
    threads = Path(f"/proc/{server.pid}/task")
    async with asyncio.timeout(30):
        while any(_state(thread) != "T" for thread in threads.iterdir()):
            await asyncio.sleep(0.005)


def _state(thread: Path) -> str:
    """Its letter: what follows the name in brackets."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


class Leader:
    """A board, and the clock it is told of."""

    def __init__(self, connection: Connection, now: float = 0.0) -> None:
        self.connection = connection
        self.told: list[Alert] = []
        self.board = AlertBoard(SETTINGS, self.told.append)
        self.now = now

    async def look(self, *views: ModelView, later_s: float = 0.0, judged: tuple[Judged, ...] = ()) -> None:
        self.now += later_s
        await self.board.tell(self.connection, seen(*views), judged, self.now, wall(self.now))

    async def see_it_hold(self, *views: ModelView) -> None:
        await self.look(*views)
        await self.look(*views, later_s=AFTER_S)


async def test_the_last_message_says_all_that_fires(connection: Connection, model: str) -> None:
    leader = Leader(connection)

    await leader.see_it_hold(view(200, name=model, oldest_wait_s=90.0))
    both = leader.board.firing
    await leader.see_it_hold(view(1, name=model, oldest_wait_s=90.0))

    assert await states(connection, model) == [(BACKLOG, FIRING), (AlertName.OLDEST_AGE, FIRING), (BACKLOG, RESOLVED)]
    began = wall(AFTER_S)
    expected: list[dict[AlertName, datetime]] = [
        {BACKLOG: began},
        {BACKLOG: began, AlertName.OLDEST_AGE: began},
        {AlertName.OLDEST_AGE: began},
    ]
    assert [one.firing for one in await stored(connection, model)] == expected
    assert both[model] == expected[1]
    assert leader.board.firing[model] == expected[2]
    assert (await alert_told(connection, model)).firing == expected[2]
    assert (await alerts_told(connection))[model] == await alert_told(connection, model)


async def test_a_new_leader_neither_fires_twice_nor_forgets_to_resolve(connection: Connection, model: str) -> None:
    first = Leader(connection)
    await first.see_it_hold(view(200, name=model, oldest_wait_s=90.0))

    second = Leader(connection, first.now + 1.0)
    for _ in range(10):
        await second.look(view(200, name=model, oldest_wait_s=1.0), later_s=1.0)
    third = Leader(connection, second.now + 1.0)
    await third.look()  # the model is gone

    assert await states(connection, model) == [
        (BACKLOG, FIRING),
        (AlertName.OLDEST_AGE, FIRING),
        (AlertName.OLDEST_AGE, RESOLVED),
        (BACKLOG, RESOLVED),
    ]
    assert {one.since for one in await stored(connection, model)} == {wall(AFTER_S)}


async def test_a_new_leader_tells_again_when_it_is_time(connection: Connection, model: str) -> None:
    first = Leader(connection)
    await first.see_it_hold(view(200, name=model))

    second = Leader(connection, first.now + REPEAT_S - 1.0)
    await second.look(view(200, name=model))
    early = await states(connection, model)
    await second.look(view(200, name=model), later_s=1.0)

    assert early == [(BACKLOG, FIRING)]
    again = await stored(connection, model)
    assert [(one.state, one.at, one.since) for one in again] == [
        (FIRING, wall(AFTER_S), wall(AFTER_S)),
        (FIRING, wall(AFTER_S + REPEAT_S), wall(AFTER_S)),
    ]


async def test_two_that_both_think_they_lead_tell_it_once(connection: Connection, model: str) -> None:
    """One was deposed while its message was on its way: both have read that nothing fires."""
    deposed, leader = Leader(connection), Leader(connection, 0.5)
    await deposed.look(view(200, name=model))
    await leader.look(view(200, name=model))

    await deposed.look(view(200, name=model), later_s=AFTER_S)
    await leader.look(view(200, name=model), later_s=AFTER_S)
    await leader.see_it_hold(view(0, name=model))
    # And the other way round: the end was told by the new one.
    await deposed.see_it_hold(view(0, name=model))

    assert await states(connection, model) == [(BACKLOG, FIRING), (BACKLOG, RESOLVED)]
    assert [one.since for one in await stored(connection, model)] == [wall(AFTER_S)] * 2
    assert (leader.board.untold, deposed.board.untold) == (0, 0)
    assert (leader.board.firing, deposed.board.firing) == ({}, {})


async def test_a_receipt_that_was_lost_does_not_tell_it_twice(
    connection: Connection, nats_server: NatsServer, model: str
) -> None:
    leader = Leader(connection)
    await leader.look(view(200, name=model))
    try:
        await frozen(nats_server)
        await leader.look(view(200, name=model), later_s=AFTER_S)  # sent, and not answered
    finally:
        assert nats_server.pid is not None
        thaw(nats_server.pid)
    untold = leader.board.untold
    async with asyncio.timeout(30):
        while not await states(connection, model):
            await asyncio.sleep(0.02)

    await leader.look(view(200, name=model), later_s=RETRY_AFTER_S)
    await leader.see_it_hold(view(0, name=model))

    assert untold == 1
    assert await states(connection, model) == [(BACKLOG, FIRING), (BACKLOG, RESOLVED)]
    assert leader.board.untold == 0


async def test_what_the_broker_does_not_take_is_told_later_in_its_order(connection: Connection, model: str) -> None:
    leader = Leader(connection)
    await leader.look(view(200, name=model))
    await connection.js.delete_stream(Stream.ALERTS)

    await leader.see_it_hold(view(200, name=model))
    await leader.see_it_hold(view(0, name=model))
    untold = leader.board.untold
    await make_stream(connection)
    await leader.look(view(0, name=model), later_s=RETRY_AFTER_S)

    assert untold == 2
    assert leader.told == await stored(connection, model)
    assert await states(connection, model) == [(BACKLOG, FIRING), (BACKLOG, RESOLVED)]
    assert leader.board.untold == 0


async def test_a_repeat_that_cannot_be_told_is_not_heaped_up(connection: Connection, model: str) -> None:
    leader = Leader(connection)
    await leader.see_it_hold(view(200, name=model))
    await connection.js.delete_stream(Stream.ALERTS)
    for _ in range(5):
        await leader.look(view(200, name=model), later_s=REPEAT_S)

    assert leader.board.untold == 1
    await make_stream(connection)
    await leader.look(view(200, name=model), later_s=RETRY_AFTER_S)
    await leader.see_it_hold(view(200, name=model))
    # The stream was emptied: for whoever reads it, the alert begins now.
    assert await states(connection, model) == [(BACKLOG, FIRING)]
    assert leader.board.firing[model] == {BACKLOG: (await stored(connection, model))[0].since}


async def test_what_waits_to_be_told_has_an_end_and_ends_well(connection: Connection, model: str) -> None:
    leader = Leader(connection)
    await leader.look(view(0, name=model))
    await connection.js.delete_stream(Stream.ALERTS)
    for _ in range(MOST_UNTOLD):
        await leader.see_it_hold(view(200, name=model))
        await leader.see_it_hold(view(0, name=model))
    untold = leader.board.untold
    await make_stream(connection)
    await leader.look(view(0, name=model), later_s=RETRY_AFTER_S)
    await leader.see_it_hold(view(0, name=model))

    assert untold == MOST_UNTOLD
    told = await states(connection, model)
    assert told == [(BACKLOG, FIRING), (BACKLOG, RESOLVED)] * (MOST_UNTOLD // 2)


async def test_a_message_written_by_hand_is_passed_over(connection: Connection, model: str) -> None:
    await connection.js.publish(alert_subject(AlertKind.BACKLOG, model), b"not an alert")
    leader = Leader(connection)

    await leader.see_it_hold(view(200, name=model))
    await connection.js.publish(alert_subject(AlertKind.BACKLOG, model), b"nor this")
    await leader.see_it_hold(view(0, name=model))
    await leader.see_it_hold(view(200, name=model))

    assert leader.board.untold == 0
    assert (await alert_told(connection, model)).firing == leader.board.firing[model]


async def test_a_message_is_stored_only_behind_the_one_it_was_made_for(connection: Connection, model: str) -> None:
    alert = Alert(BACKLOG, FIRING, model, wall(0.0), wall(0.0), "1 job waits", 1, 0, 0.0, 0, 1)

    first = await tell_alert(connection, alert, 0)
    with pytest.raises(WrongLastSequence):
        await tell_alert(connection, alert, 0)
    second = await tell_alert(connection, alert, first)

    assert await alert_told(connection, model) == Told(second, {}, wall(0.0))


async def test_nothing_fires_before_it_is_known_what_fires_already(
    connection: Connection, nats_server: NatsServer, model: str
) -> None:
    first = Leader(connection)
    await first.see_it_hold(view(200, name=model))
    async with Connection(NatsSettings(url=nats_server.url)) as lost:
        second = Leader(lost, first.now)
        await lost.nc.close()
        for _ in range(20):
            await second.look(view(200, name=model), later_s=1.0)
        blind = (second.board.untold, second.board.firing)

    second.connection = connection
    await second.see_it_hold(view(200, name=model))
    await second.see_it_hold(view(0, name=model))

    assert blind == (0, {})
    assert await states(connection, model) == [(BACKLOG, FIRING), (BACKLOG, RESOLVED)]


def test_the_stream_is_the_one_of_the_topology() -> None:
    [config] = [one for one in stream_configs(StorageLimits()) if one.name == Stream.ALERTS]

    # With a tighter limit than the last message of each model, a new leader would not know what fires.
    assert (config.max_msgs_per_subject or -1) == -1
    assert config.discard == api.DiscardPolicy.OLD
