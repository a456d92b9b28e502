"""A broker that is restarted while nothing runs: its memory, and with it the bucket of heartbeats, is gone."""

import asyncio
from pathlib import Path

import pytest
from scaling_stage import DEADLINE_S, Stage

from headrace_contracts.result import Status
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.topology import ensure_topology

pytestmark = pytest.mark.slow


async def test_a_job_still_starts_a_worker_from_zero(tmp_path: Path) -> None:
    """No worker lives that would make the bucket anew: the scaler has to start one without it."""
    async with (
        NatsServer(tmp_path / "nats", sync_always=False) as server,
        Connection(NatsSettings(url=server.url)) as connection,
    ):
        await ensure_topology(connection)
        stage = Stage(connection, server.url, tmp_path)
        await stage.listen()
        try:
            await stage.add_model("m")
            async with stage.scaler():
                await server.stop()
                await server.start()
                async with asyncio.timeout(DEADLINE_S):
                    while not connection.is_connected:
                        await asyncio.sleep(0.02)
                job = await stage.submit("m", echo="hello")
                assert (await stage.result("m", job)).status is Status.SUCCEEDED
                await stage.until_no_worker()
        finally:
            await stage.close()
