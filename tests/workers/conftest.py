"""A rig per test: its own model on the module's broker; afterwards nothing may be left over."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from rig import Rig

from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.topology import ensure_topology


@pytest_asyncio.fixture
async def rig(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Rig]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await ensure_topology(connection)
        rig = Rig(nats_server, connection, f"m-{uuid.uuid4().hex[:8]}", tmp_path)
        try:
            yield rig
            await rig.until_drained()
        finally:
            await rig.stop()
