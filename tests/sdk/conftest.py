"""A broker with models, a client, a worker that does what the test says, and the command line."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from command_line import Command, Headrace
from staged_worker import DRAW, ECHO, HEAR, WRITE, StagedWorker

import headrace
from headrace_contracts.settings import NatsSettings, Settings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.registry import add_model
from headrace_storage.topology import ensure_topology


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settings(nats_server: NatsServer) -> AsyncIterator[Settings]:
    settings = Settings(nats=NatsSettings(url=nats_server.url))
    async with Connection(settings.nats) as connection:
        await ensure_topology(connection)
        for spec in (DRAW, HEAR, WRITE, ECHO):
            await add_model(connection, spec)
    yield settings


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(settings: Settings) -> AsyncIterator[headrace.Client]:
    async with headrace.Client(settings) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(settings: Settings) -> AsyncIterator[StagedWorker]:
    async with Connection(settings.nats) as connection:
        yield StagedWorker(connection)


@pytest.fixture
def headrace_command(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Headrace:
    """Starts the real command line in a process of its own: `await headrace_command("run", "draw", ...)`."""
    folder = tmp_path_factory.mktemp("cli")

    async def start(*arguments: str, stdin: bytes | None = None, **environment: str) -> Command:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("NATS_", "S3_", "HEADRACE_"))}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headrace.cli",
            *arguments,
            env={**clean, "NATS_URL": settings.nats.url, "XDG_CONFIG_HOME": str(folder), **environment},
            cwd=folder,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        if stdin is not None:
            assert process.stdin is not None
            process.stdin.write(stdin)
            process.stdin.close()
        return Command(process)

    return start
