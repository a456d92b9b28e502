"""A stage per test on the module's broker; afterwards no worker is left."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import launchers_places
import pytest
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


@pytest.fixture
def place(tmp_path: Path) -> Iterator[launchers_places.LocalPlace]:
    """A launcher of local processes whose workers are a shell script."""
    place = launchers_places.LocalPlace(tmp_path / "scaler", "waits", os.environ, launchers_places.STAND_IN)
    try:
        yield place
    finally:
        place.clear()
