"""Another program can start and stop workers: it needs nothing but the alerts, the queue and our command line."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest_asyncio
from test_node_client import NODE, packages, pytestmark  # noqa: F401  # they need the same

from headrace_contracts.alert import Alert, AlertName, AlertState
from headrace_contracts.codec import Encoding
from headrace_contracts.job import JobBody
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.names import DEFAULT_TENANT, Lane
from headrace_contracts.result import Result, Status
from headrace_contracts.settings import NatsSettings
from headrace_contracts.tasks.registry import Task
from headrace_local.nats_server import NatsServer
from headrace_storage.alerts import publish_alert
from headrace_storage.connection import Connection
from headrace_storage.events import last_event
from headrace_storage.jobs import submit_job
from headrace_storage.registry import add_model
from headrace_storage.results import wait_result
from headrace_storage.topology import ensure_topology
from headrace_storage.workers import list_workers

DEADLINE_S = 60.0
MODELS = ("asleep", "drowsy")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await ensure_topology(connection)
        for model in MODELS:
            await add_model(connection, ModelSpec(model, Task.SYNTHETIC, EngineKind.SYNTHETIC))
        yield connection


async def tell(connection: Connection, model: str, state: AlertState, *firing: AlertName) -> None:
    """An alert as the scaler publishes it."""
    now = datetime.now(UTC)
    alert = Alert(
        AlertName.NO_WORKER, state, model, now, now, "as a test wants it", 1, 0, 0.0, 0, 1, dict.fromkeys(firing, now)
    )
    await publish_alert(connection, alert)


async def submit(connection: Connection, model: str, job_id: str, **wanted: object) -> None:
    body = JobBody(input=msgspec.Raw(msgspec.json.encode(wanted)))
    await submit_job(connection, DEFAULT_TENANT, model, Lane.NORMAL, body, Encoding.JSON, job_id)


async def result_of(connection: Connection, model: str, job_id: str) -> Result:
    async with asyncio.timeout(DEADLINE_S):
        return await wait_result(connection, DEFAULT_TENANT, model, job_id)


class Scaler:
    """The program, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self, line: str) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            said = await self.process.stdout.readline()
        assert said.decode().rstrip() == line

    async def end(self) -> int:
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()


@asynccontextmanager
async def scaling(server: NatsServer, folder: Path) -> AsyncIterator[Scaler]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("NATS_", "S3_", "HEADRACE_"))}
    commands = Path(sys.executable).parent
    process = await asyncio.create_subprocess_exec(
        *("node", str(NODE / "external-scaler.mjs")),
        env={
            **clean,
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "NATS_URL": server.url,
            "HEADRACE_ALLOW_UNSAFE_BROKER": "1",
        },
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
    )
    scaler = Scaler(process)
    try:
        yield scaler
    finally:
        assert await scaler.end() == 0


async def test_an_alert_starts_a_worker_and_its_end_lets_it_drain(
    connection: Connection, nats_server: NatsServer, tmp_path: Path
) -> None:
    await submit(connection, "asleep", "waits", echo="awake", steps=40, step_s=0.05)
    # Told before the program listens; and another alert of the model, which asks for no worker.
    await tell(connection, "asleep", AlertState.FIRING, AlertName.NO_WORKER, AlertName.OLDEST_AGE)
    await tell(connection, "drowsy", AlertState.FIRING, AlertName.CRASH_LOOP)

    async with scaling(nats_server, tmp_path) as scaler:
        await scaler.says("asleep: worker started")
        async with asyncio.timeout(DEADLINE_S):
            while await last_event(connection, DEFAULT_TENANT, "waits", "started") is None:
                await asyncio.sleep(0.05)
        # As it happens once the worker is ready: the job still runs, and another one waits.
        await submit(connection, "asleep", "waits-too", echo="again")
        await tell(connection, "asleep", AlertState.RESOLVED)

        results = [await result_of(connection, "asleep", job_id) for job_id in ("waits", "waits-too")]

        assert [result.status for result in results] == [Status.SUCCEEDED] * 2
        assert results[0].worker == results[1].worker
        await scaler.says("asleep: worker ended (exit status 0)")
        assert await list_workers(connection) == []


async def test_the_end_of_the_program_is_the_end_of_its_workers(
    connection: Connection, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with scaling(nats_server, tmp_path) as scaler:
        await tell(connection, "drowsy", AlertState.FIRING, AlertName.BACKLOG)
        await scaler.says("drowsy: worker started")
        async with asyncio.timeout(DEADLINE_S):
            while not await list_workers(connection):
                await asyncio.sleep(0.05)

        scaler.process.terminate()

        await scaler.says("drowsy: worker ended (exit status 0)")
    assert await list_workers(connection) == []
