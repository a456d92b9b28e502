"""The streams, buckets and consumers: made once, refused when different, and safe by their own settings."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import nats.js.errors
import pytest
import pytest_asyncio
from broker_in_disguise import disguised

from headrace_contracts.errors import BrokerTooOld, BrokerTooSmall, BrokerUnavailable, TopologyDrift, UnknownModel
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.topology import (
    StorageLimits,
    ensure_consumers,
    ensure_topology,
    lease_of_consumers,
    limits_there,
)


@pytest_asyncio.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await ensure_topology(connection)
        yield connection


async def test_ensuring_twice_changes_nothing(connection: Connection) -> None:
    await ensure_topology(connection)
    await asyncio.gather(ensure_topology(connection), ensure_topology(connection))


async def test_a_stream_with_other_settings_is_refused_and_named(connection: Connection) -> None:
    with pytest.raises(TopologyDrift, match=r"stream JOBS .* max_bytes is 2147483648, not 1048576"):
        await ensure_topology(connection, StorageLimits(jobs_bytes=1 << 20))


async def test_a_bucket_with_other_settings_is_refused_and_each_is_named(connection: Connection) -> None:
    config = (await connection.js.stream_info("KV_ATTEMPTS")).config
    await connection.js.update_stream(config.evolve(max_msgs_per_subject=2, max_bytes=1 << 30))
    try:
        with pytest.raises(
            TopologyDrift, match=r"bucket ATTEMPTS .* max_bytes is .*; max_msgs_per_subject is 2, not 1"
        ):
            await ensure_topology(connection)
    finally:
        await connection.js.update_stream(config)


async def test_limits_that_somebody_chose_are_taken_as_they_are(tmp_path: Path) -> None:
    """Workers ensure the topology too: they must not refuse an operator's limits, or a cluster's replicas."""
    chosen = StorageLimits(jobs_bytes=1 << 20, events_bytes=1 << 20, jobs_per_subject=7, message_bytes=1 << 16)
    async with (
        NatsServer(tmp_path, sync_always=False) as server,
        Connection(NatsSettings(url=server.url)) as connection,
    ):
        await ensure_topology(connection, chosen)
        await connection.js.delete_stream("EVENTS")
        await ensure_topology(connection)
        assert await limits_there(connection) == msgspec.structs.replace(chosen, events_bytes=128 << 20)


async def test_a_broker_without_room_for_a_stream_is_one_clear_error(tmp_path: Path) -> None:
    """As on a small disk, where the server's own limit is three quarters of what is free."""
    async with (
        NatsServer(tmp_path, max_store_bytes=1 << 30) as server,
        Connection(NatsSettings(url=server.url)) as connection,
    ):
        with pytest.raises(BrokerTooSmall, match=r"no room for stream JOBS, .* to 2048 MiB.*max_file_store"):
            await ensure_topology(connection)
        # All streams fit, and then the buckets do not.
        fits = StorageLimits(100 << 20, 400 << 20, 400 << 20, 1 << 20)
        with pytest.raises(BrokerTooSmall, match="no room for stream KV_MODELS"):
            await ensure_topology(connection, fits)


async def test_a_broker_that_is_too_old_is_one_clear_error(tmp_path: Path) -> None:
    """It would pass over what it does not know of a stream, and the difference then be taken for an operator's."""
    async with NatsServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as present:
        real = present.server_version.encode()
        async with disguised(server.port, real, b"2.11.9") as url, Connection(NatsSettings(url=url)) as old:
            with pytest.raises(BrokerTooOld, match=r"is nats-server 2.11.9, and 2.12.0 or later is needed"):
                await ensure_topology(old)
        assert await present.js.streams_info() == []


async def test_consumers_with_another_lease_are_refused(connection: Connection) -> None:
    await ensure_consumers(connection, "drift", ack_wait_s=30.0)
    with pytest.raises(TopologyDrift, match=r"consumer drift-high .* ack_wait is 30.0, not 5"):
        await ensure_consumers(connection, "drift", ack_wait_s=5.0)
    assert await lease_of_consumers(connection, "drift") == 30.0


async def test_a_model_without_consumers_is_unknown(connection: Connection) -> None:
    with pytest.raises(UnknownModel):
        await lease_of_consumers(connection, "nobody")


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Rollup": "all"},
        {"Nats-Rollup": "sub"},
        {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": "jobs.other.m.high"},
    ],
)
async def test_headers_that_escape_a_subject_are_refused_on_jobs(
    connection: Connection, headers: dict[str, str]
) -> None:
    """They would let a client empty the stream, or publish as another tenant."""
    with pytest.raises(nats.js.errors.APIError):
        await connection.js.publish("jobs.acme.m.high", b"{}", headers=headers)


async def test_a_second_result_is_refused_by_the_broker_itself(connection: Connection) -> None:
    await connection.js.publish("results.t.m.final", b"first")
    with pytest.raises(nats.js.errors.APIError, match="maximum messages per subject"):
        await connection.js.publish("results.t.m.final", b"second, by a client that sets no condition")


async def test_no_server_is_one_clear_error() -> None:
    with pytest.raises(BrokerUnavailable, match=r"no NATS server with JetStream at nats://127.0.0.1:1 .*`headrace up`"):
        async with Connection(NatsSettings(url="nats://127.0.0.1:1")):
            pass
