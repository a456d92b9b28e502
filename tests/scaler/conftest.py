"""A stage per test on the module's broker; afterwards no worker is left."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from scaling_stage import Stage

from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.topology import ensure_topology


@pytest_asyncio.fixture
async def stage(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Stage]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await ensure_topology(connection)
        stage = Stage(connection, nats_server.url, tmp_path)
        await stage.listen()
        try:
            yield stage
        finally:
            await stage.close()
