"""A worker that has stopped speaking is gone, and nothing keeps its heartbeat."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from headrace_contracts.heartbeat import WorkerStatus
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.topology import HEARTBEAT_TTL_S, ensure_topology
from headrace_storage.workers import list_workers, put_status

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def status(worker_id: str) -> WorkerStatus:
    return WorkerStatus(worker_id, "host", 1, NOW, NOW, False, ())


async def ids(connection: Connection) -> list[str]:
    return [worker.id for worker in await list_workers(connection)]


async def test_a_silent_worker_disappears_and_one_that_speaks_does_not(tmp_path: Path) -> None:
    """Through a restart of the broker as well: it remembers no heartbeat."""
    async with NatsServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection)
        await put_status(connection, status("before-the-restart"))
        await server.kill()
        await server.start()
        async with asyncio.timeout(30):
            while not connection.nc.is_connected:
                await asyncio.sleep(0.01)
        # The bucket is gone with the broker's memory, and that is no outage: nobody works.
        assert await ids(connection) == []
        await ensure_topology(connection)
        assert await ids(connection) == []
        await put_status(connection, status("silent"))
        await put_status(connection, status("speaks"))
        assert await ids(connection) == ["silent", "speaks"]
        async with asyncio.timeout(3 * HEARTBEAT_TTL_S):
            while "silent" in (seen := await ids(connection)):
                assert "speaks" in seen
                await put_status(connection, status("speaks"))
                await asyncio.sleep(0.2)
        assert await ids(connection) == ["speaks"]
