"""What an example needs: a broker and a worker, both real processes; the examples are run as a user runs them."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from example_runs import System

from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.settings import NatsSettings
from headrace_contracts.tasks.registry import Task
from headrace_local.models import find_model
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.registry import add_model
from headrace_storage.topology import ensure_topology

ROOT = Path(__file__).parents[2]

# Kept between runs, for the import of the language model takes 20 s. Removing it is always safe.
WEIGHTS = Path(os.environ.get("HEADRACE_TEST_CACHE") or ROOT / ".headrace" / "test-cache")

ECHO = ModelSpec("echo", Task.SYNTHETIC, EngineKind.SYNTHETIC)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def synthetic(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system with the model `echo`, which does what its input says."""
    async with _serving(nats_server, [ECHO], tmp_path_factory.mktemp("synthetic")) as system:
        yield system


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bundled(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system with the three models that come with Headrace."""
    specs = [find_model(name) for name in ("tiny-shapes", "whisper-tiny-en", "smollm2-135m")]
    async with _serving(nats_server, specs, tmp_path_factory.mktemp("bundled")) as system:
        yield system


@asynccontextmanager
async def _serving(server: NatsServer, specs: list[ModelSpec], folder: Path) -> AsyncIterator[System]:
    async with Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection)
        for spec in specs:
            await add_model(connection, spec)
    with (folder / "worker.log").open("wb") as log:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace_workers"),
            *(argument for spec in specs for argument in ("--model", spec.name)),
            env={
                **os.environ,
                "NATS_URL": server.url,
                "HEADRACE_CACHE_DIR": str(WEIGHTS),
                "HEADRACE_ALLOW_UNSAFE_BROKER": "1",
            },
            stderr=log,
        )
    try:
        yield System(server.url, folder)
    finally:
        worker.terminate()
        try:
            async with asyncio.timeout(60):
                status = await worker.wait()
        except TimeoutError:
            worker.kill()
            raise
    assert status == 0, (folder / "worker.log").read_text()
