"""A worker does not start on a broker that could lose jobs, and says why. Real workers, real brokers."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from broker_in_disguise import disguised
from nats.js import api

from headrace_contracts.heartbeat import EngineState
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.settings import NatsSettings
from headrace_contracts.tasks.registry import Task
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.registry import add_model
from headrace_storage.topology import ensure_topology
from headrace_storage.workers import list_workers

pytestmark = pytest.mark.slow

DEADLINE_S = 60.0


async def spawn(server: NatsServer, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
    ours = ("NATS_", "S3_", "HEADRACE_")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace_workers", "--model", "m", *arguments),
        env={**clean, "NATS_URL": server.url, "NATS_MONITOR_URL": server.monitor_url, **environment},
        stderr=asyncio.subprocess.PIPE,
    )


async def refusal(server: NatsServer, **environment: str) -> str:
    """What a worker says that does not start."""
    worker = await spawn(server, **environment)
    try:
        async with asyncio.timeout(DEADLINE_S):
            _, said = await worker.communicate()
    finally:
        if worker.returncode is None:
            worker.kill()
    assert worker.returncode == 1, said
    [line] = [line for line in said.decode().splitlines() if line.startswith("error: ")]
    return line


async def log_until_it_works(server: NatsServer, *arguments: str, **environment: str) -> str:
    """What a worker says that starts; it is stopped then."""
    worker = await spawn(server, *arguments, **environment)
    try:
        async with asyncio.timeout(DEADLINE_S), Connection(NatsSettings(url=server.url)) as connection:
            while not any(
                status.pid == worker.pid and status.engines and status.engines[0].state is EngineState.READY
                for status in await list_workers(connection)
            ):
                assert worker.returncode is None, await worker.communicate()
                await asyncio.sleep(0.02)
            worker.terminate()
            _, said = await worker.communicate()
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    assert worker.returncode == 0
    return said.decode()


async def set_up(server: NatsServer) -> None:
    async with Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection)
        await add_model(connection, ModelSpec("m", Task.SYNTHETIC, EngineKind.SYNTHETIC))


async def test_writes_that_are_not_synced_are_refused_unless_allowed(tmp_path: Path) -> None:
    async with NatsServer(tmp_path, sync_always=False) as server:
        await set_up(server)
        said = await refusal(server)
        assert "is not safe for jobs: sync_interval: not `always`: a power cut loses jobs" in said
        assert "--allow-unsafe-broker" in said
        assert "used all the same" in await log_until_it_works(server, "--allow-unsafe-broker")
        assert "used all the same" in await log_until_it_works(server, HEADRACE_ALLOW_UNSAFE_BROKER="1")


async def test_a_setting_that_cannot_be_seen_is_a_warning(tmp_path: Path) -> None:
    async with NatsServer(tmp_path, sync_always=False) as server:
        await set_up(server)
        said = await log_until_it_works(server, NATS_MONITOR_URL="")
        assert "the broker may not be safe" in said
        assert "set NATS_MONITOR_URL" in said


async def test_a_safe_broker_is_no_word_worth(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        await set_up(server)
        assert "safe" not in await log_until_it_works(server)


async def test_a_queue_that_drops_jobs_is_refused(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        await set_up(server)
        async with Connection(NatsSettings(url=server.url)) as connection:
            config = (await connection.js.stream_info("JOBS")).config
            await connection.js.update_stream(config.evolve(discard="old", discard_new_per_subject=False))
        assert "stream JOBS: its discard policy is `old`" in await refusal(server)


@pytest.mark.parametrize(
    ("changes", "said"), [({"max_deliver": 3}, "max_deliver is 3"), ({"max_deliver": 3, "backoff": [1, 2]}, "backoff")]
)
async def test_a_consumer_that_gives_jobs_up_is_refused(tmp_path: Path, changes: dict, said: str) -> None:
    async with NatsServer(tmp_path) as server:
        await set_up(server)
        async with Connection(NatsSettings(url=server.url)) as connection:
            await connection.js.delete_consumer("JOBS", "m-low")
            given = {"durable_name": "m-low", "filter_subject": "jobs.*.m.low", "ack_wait": 30, "max_ack_pending": 9}
            await connection.js.add_consumer("JOBS", api.ConsumerConfig(**{**given, **changes}))
        refused = await refusal(server)
        assert "consumer m-low" in refused
        assert said in refused


async def test_an_old_server_is_refused(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        await set_up(server)
        async with Connection(NatsSettings(url=server.url)) as connection:
            real = connection.server_version.encode()
        async with disguised(server.port, real, b"2.12.3") as url:
            assert "nats-server version: 2.12.3 is older than 2.14.3" in await refusal(server, NATS_URL=url)
