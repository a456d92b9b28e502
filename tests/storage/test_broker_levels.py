"""How full a broker is and whether it is well, on real servers that are filled, frozen and limited."""

import os
import signal
from pathlib import Path

import pytest

from headrace_contracts.names import Stream
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.broker_levels import BrokerLevels, broker_levels
from headrace_storage.connection import Connection
from headrace_storage.topology import StorageLimits, ensure_topology

pytestmark = pytest.mark.slow

LIMITS = StorageLimits(jobs_bytes=1 << 20, dead_bytes=100_000)


class LimitedServer(NatsServer):
    """A server whose account has less room than it."""

    def _configuration(self) -> str:
        limits = "jetstream { max_file: 600M, max_mem: 300M }"
        account = f"accounts {{ A {{ {limits}, users: [ {{ user: u, password: p }} ] }} }}\nno_auth_user: u\n"
        return super()._configuration() + account


class DenyingServer(NatsServer):
    """A server where nobody may ask for the account, or for one of the streams."""

    def _configuration(self) -> str:
        denied = '[ "$JS.API.INFO", "$JS.API.STREAM.INFO.RESULTS" ]'
        users = f"[ {{ user: u, password: p, permissions: {{ publish: {{ deny: {denied} }} }} }} ]"
        return super()._configuration() + f"accounts {{ A {{ jetstream: on, users: {users} }} }}\nno_auth_user: u\n"


def by_name(levels: BrokerLevels) -> dict[str, tuple[int, int | None]]:
    return {stream.name: (stream.messages, stream.limit_bytes) for stream in levels.streams}


async def test_what_streams_hold_and_at_what_they_refuse(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection, LIMITS)
        for number in range(3):
            await connection.js.publish(f"dead.t.m.{number}", bytes(10_000))
        levels = await broker_levels(connection, server.monitor_url)

    [dead] = [stream for stream in levels.streams if stream.name == Stream.DEAD]
    assert levels.healthy
    assert levels.dead_letters == 3
    assert 30_000 < dead.used_bytes < 31_000
    assert by_name(levels)[Stream.DEAD] == (3, 100_000)
    assert by_name(levels)[Stream.JOBS] == (0, 1 << 20)
    # They drop their oldest, as they are meant to: full is well.
    assert by_name(levels)[Stream.EVENTS] == by_name(levels)[Stream.ALERTS] == (0, None)
    # Nothing opened the object store.
    assert "OBJ_headrace" not in by_name(levels)
    assert levels.storage_bytes is not None
    assert levels.storage_limit_bytes is not None
    assert 30_000 < levels.storage_bytes < 100_000 < levels.storage_limit_bytes


async def test_without_a_monitoring_port_only_what_is_used_is_known(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection, LIMITS)
        await connection.js.publish("dead.t.m.j", bytes(10_000))
        levels = await broker_levels(connection, None)

    assert levels.healthy
    assert levels.storage_bytes is not None
    assert 10_000 < levels.storage_bytes < 20_000
    assert levels.storage_limit_bytes is None


async def test_the_limit_is_of_what_is_fuller_the_account_or_the_server(tmp_path: Path) -> None:
    limits = StorageLimits(1 << 20, 1 << 20, 1 << 20, 1 << 20)
    async with LimitedServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection, limits)
        await connection.js.publish("dead.t.m.j", bytes(10_000))
        levels = await broker_levels(connection, server.monitor_url)

    assert levels.storage_limit_bytes == 600_000_000


async def test_streams_that_are_not_made_yet_are_nothing_unhealthy(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as connection:
        levels = await broker_levels(connection, server.monitor_url)

    assert levels.healthy
    assert levels.streams == ()
    assert levels.dead_letters is None


async def test_what_may_not_be_asked_has_no_number_and_is_nothing_unhealthy(tmp_path: Path) -> None:
    async with DenyingServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as connection:
        levels = await broker_levels(connection, None)

    assert levels.healthy
    assert levels.storage_bytes is None


async def test_a_server_that_does_not_answer_is_not_healthy_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection, LIMITS)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            frozen = await broker_levels(connection, None)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        thawed = await broker_levels(connection, None)

    assert not frozen.healthy
    assert frozen.streams == ()
    assert frozen.storage_bytes is None
    assert thawed.healthy
