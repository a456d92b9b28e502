"""The system under measurement: a broker of its own, worker processes, and a client's connection to submit by."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from headrace_contracts.codec import Encoding
from headrace_contracts.heartbeat import EngineState, WorkerStatus
from headrace_contracts.job import JobBody
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import DEFAULT_TENANT, Lane
from headrace_contracts.result import Result, Status
from headrace_contracts.settings import NatsSettings
from headrace_contracts.tasks.registry import TaskInput
from headrace_local.nats_server import NatsServer
from headrace_local.worker_process import WorkerProcess, worker_environment
from headrace_storage.connection import Connection
from headrace_storage.jobs import Receipt, submit_job
from headrace_storage.registry import add_model
from headrace_storage.results import wait_result
from headrace_storage.topology import ACK_WAIT_S, ensure_topology
from headrace_storage.workers import list_workers

# Loading may include the import of a language model's weights.
READY_DEADLINE_S = 300.0
RESULT_DEADLINE_S = 120.0


class BenchmarkError(Exception):
    """A measurement is void: something did not do what was measured."""


@dataclass(frozen=True)
class Options:
    """How much is measured, and where files may lie."""

    quick: bool
    rng: random.Random
    work: Path
    """Folder for stores and logs, on a real disk."""
    cache: Path
    """Weights of models, ready to load."""
    say: Callable[[str], None]
    """Tells the user what is going on."""


@dataclass(frozen=True)
class Rig:
    """One broker and the client's connection to it."""

    server: NatsServer
    connection: Connection
    folder: Path
    cache: Path

    async def submit(self, model: str, task_input: TaskInput) -> Receipt:
        """Publish a job and wait for its receipt."""
        body = JobBody(input=msgspec.Raw(msgspec.json.encode(task_input)))
        return await submit_job(self.connection, DEFAULT_TENANT, model, Lane.NORMAL, body, Encoding.JSON)

    async def result(self, job: Receipt) -> Result:
        """The job's result, once it is stored.

        Raises:
            BenchmarkError: the job did not succeed.
        """
        async with asyncio.timeout(RESULT_DEADLINE_S):
            result = await wait_result(self.connection, job.tenant, job.model, job.job_id)
        if result.status is not Status.SUCCEEDED:
            raise BenchmarkError(f"a job of {job.model} ended as {result.status}: {result.error}")
        return result

    @contextlib.asynccontextmanager
    async def worker(
        self, specs: Sequence[ModelSpec], lease_s: float = ACK_WAIT_S, name: str | None = None
    ) -> AsyncIterator[WorkerProcess]:
        """A worker process that serves `specs`, its engines ready; `name` tells it from others of the same models."""
        for spec in specs:
            await add_model(self.connection, spec, lease_s)
        names = [spec.name for spec in specs]
        environment = {
            **worker_environment(self.server.url, own_server=True),
            "HEADRACE_CACHE_DIR": str(self.cache),
            # Some measurements are of a broker that does not sync.
            "HEADRACE_ALLOW_UNSAFE_BROKER": "1",
        }
        folder = self.folder / (name or names[0])
        folder.mkdir()
        worker = WorkerProcess(names, environment, folder)
        await worker.start()
        try:
            await self._until_ready(worker)
            yield worker
        finally:
            await worker.stop()

    async def _until_ready(self, worker: WorkerProcess) -> None:
        async with asyncio.timeout(READY_DEADLINE_S):
            while True:
                for status in await list_workers(self.connection):
                    if status.pid == worker.pid and _ready(status):
                        return
                if worker.pid is None:
                    raise BenchmarkError(f"the worker stopped: {await worker.wait()}")
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def open_rig(options: Options, name: str, *, sync_always: bool) -> AsyncIterator[Rig]:
    """A broker with an empty store, and a connection to it."""
    folder = options.work / name
    async with (
        NatsServer(folder / "nats", sync_always=sync_always) as server,
        Connection(NatsSettings(url=server.url)) as connection,
    ):
        await ensure_topology(connection)
        yield Rig(server, connection, folder, options.cache)


def engines_of(worker_pid: int) -> list[psutil.Process]:
    """The engine processes of a worker."""
    children = psutil.Process(worker_pid).children()
    return [child for child in children if "headrace_workers.engine_process" in child.cmdline()]


def _ready(status: WorkerStatus) -> bool:
    return bool(status.engines) and all(engine.state is EngineState.READY for engine in status.engines)
