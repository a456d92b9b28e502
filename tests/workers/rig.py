"""A worker under test: a real process on a real broker, with models whose inputs choose what happens."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
from lives import command_of

from headrace_contracts.attempts import Attempts
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import ErrorCode, Fault
from headrace_contracts.event import AnyEvent
from headrace_contracts.heartbeat import EngineState, WorkerStatus
from headrace_contracts.job import JobBody
from headrace_contracts.model import Batching, EngineKind, ModelSpec, Retry, Timeouts
from headrace_contracts.names import Bucket, Lane, Stream
from headrace_contracts.result import Result, ResultError, Status
from headrace_contracts.tasks.registry import Task
from headrace_local.nats_server import NatsServer
from headrace_storage.attempts import get_attempts
from headrace_storage.connection import Connection
from headrace_storage.control import send_cancel
from headrace_storage.events import follow_events
from headrace_storage.jobs import Receipt, submit_job
from headrace_storage.lanes import lanes_of_model
from headrace_storage.registry import add_model
from headrace_storage.results import commit_result, wait_result
from headrace_storage.workers import list_workers

TENANT = "acme"
# Short, so that a dead worker's job comes back while a test waits; long beside a loaded machine's pauses.
LEASE_S = 3.0
DEADLINE_S = 60.0


class Rig:
    """One model of the synthetic engine and the worker processes that serve it."""

    def __init__(self, server: NatsServer, connection: Connection, model: str, folder: Path) -> None:
        self.server = server
        self.connection = connection
        self.model = model
        self.folder = folder
        self.environment = {**os.environ, "NATS_URL": server.url, "HEADRACE_ALLOW_UNSAFE_BROKER": "1"}
        self.workers: list[asyncio.subprocess.Process] = []

    async def add_model(self, **changes: object) -> ModelSpec:
        spec = ModelSpec(
            self.model,
            Task.SYNTHETIC,
            EngineKind.SYNTHETIC,
            retry=Retry(max_attempts=3, base_delay_s=0.01, max_delay_s=0.05),
            timeouts=Timeouts(run_s=60, step_s=30),
            batching=Batching(max_size=1),
        )
        spec = msgspec.structs.replace(spec, **changes)
        await add_model(self.connection, spec, ack_wait_s=LEASE_S)
        return spec

    async def start_worker(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a worker and wait until its engine is ready."""
        worker = await self.spawn_worker(*arguments)
        await self.until(lambda status: status.pid == worker.pid and status.engines[0].state is EngineState.READY)
        return worker

    async def spawn_worker(self, *arguments: str) -> asyncio.subprocess.Process:
        with (self.folder / "worker.log").open("ab") as log:
            worker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headrace_workers", "--model", self.model, *arguments),
                env=self.environment,
                stderr=log,
            )
        self.workers.append(worker)
        return worker

    async def until(self, wanted: Callable[[WorkerStatus], bool]) -> WorkerStatus:
        """Wait for a heartbeat that is as wanted."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for status in await list_workers(self.connection):
                    if status.engines and status.engines[0].model == self.model and wanted(status):
                        return status
                await asyncio.sleep(0.02)

    async def until_running(self, job_id: str) -> WorkerStatus:
        return await self.until(lambda status: job_id in status.engines[0].running)

    async def until_drained(self) -> None:
        """Every job has been acknowledged, within a lease and a bit."""
        async with asyncio.timeout(3 * LEASE_S):
            while any(lane.waiting or lane.held for lane in await lanes_of_model(self.connection, self.model)):
                await asyncio.sleep(0.02)

    async def submit(self, job_id: str | None = None, lane: Lane = Lane.NORMAL, **task_input: object) -> str:
        return (await self.submit_body({"input": task_input}, job_id, lane)).job_id

    async def submit_body(
        self, body: dict[str, object], job_id: str | None = None, lane: Lane = Lane.NORMAL
    ) -> Receipt:
        decoded = msgspec.json.decode(msgspec.json.encode(body), type=JobBody)
        return await submit_job(self.connection, TENANT, self.model, lane, decoded, Encoding.JSON, job_id)

    async def result(self, job_id: str, deadline_s: float = DEADLINE_S) -> Result:
        async with asyncio.timeout(deadline_s):
            return await wait_result(self.connection, TENANT, self.model, job_id)

    async def run(self, **task_input: object) -> Result:
        return await self.result(await self.submit(**task_input))

    async def publish(self, data: bytes, lane: str = "normal", headers: dict[str, str] | None = None) -> int:
        """Publish as a client without our SDK would; the sequence of the receipt."""
        ack = await self.connection.js.publish(f"jobs.{TENANT}.{self.model}.{lane}", data, headers=headers)
        return int(ack.seq)

    async def events(self, job_id: str, last: type[AnyEvent]) -> list[AnyEvent]:
        """Events of a job up to the first of kind `last`."""
        seen = []
        async with asyncio.timeout(DEADLINE_S):
            async for event in follow_events(self.connection, TENANT, self.model, job_id):
                seen.append(event)
                if isinstance(event, last):
                    break
        return seen

    async def cancel(self, job_id: str) -> None:
        """As the SDK does: first the result, then the message to the worker."""
        await self.commit_cancel(job_id)
        await send_cancel(self.connection, TENANT, self.model, job_id)

    async def commit_cancel(self, job_id: str) -> None:
        now = (await self.connection.js.stream_info(Stream.JOBS)).created
        canceled = Result(
            job_id,
            self.model,
            "",
            Status.CANCELED,
            msgspec.Raw(b"null"),
            0,
            now,
            now,
            error=ResultError(ErrorCode.CANCELED, "canceled", Fault.INPUT, retryable=True),
        )
        assert (await commit_result(self.connection, TENANT, canceled, Encoding.JSON)).won

    async def until_logged(self, *words: str) -> None:
        """Wait until a worker's log says one of these."""
        async with asyncio.timeout(DEADLINE_S):
            while not any(word in (self.folder / "worker.log").read_text() for word in words):
                await asyncio.sleep(0.05)

    async def until_recorded(self, job_id: str, wanted: Callable[[Attempts], bool]) -> None:
        """Wait until the record of a job's attempts is as wanted."""
        async with asyncio.timeout(DEADLINE_S):
            while not wanted(await get_attempts(self.connection, TENANT, self.model, job_id)):
                await asyncio.sleep(0.05)

    async def pass_a_lease(self) -> None:
        """Let every lease that is not renewed run out: the one thing here that only time does."""
        await asyncio.sleep(1.2 * LEASE_S)

    def engine_pid(self, worker: asyncio.subprocess.Process) -> int:
        [engine] = [
            p for p in psutil.Process(worker.pid).children() if "headrace_workers.engine_process" in command_of(p)
        ]
        return engine.pid

    async def stop(self) -> None:
        for worker in self.workers:
            if worker.returncode is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            await worker.wait()
        # A killed worker leaves its lease behind: the next test's workers need not wait for its end.
        await self.connection.js.purge_stream(f"KV_{Bucket.LEASES}")
