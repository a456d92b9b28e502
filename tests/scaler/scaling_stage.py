"""A scaler under test: a real broker, real workers of the synthetic engine, and everything that the scaler says."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path

import msgspec
import psutil

from headrace_contracts.alert import ScalingDecision, WorkerColdStart
from headrace_contracts.clock import SystemClock
from headrace_contracts.codec import Encoding
from headrace_contracts.heartbeat import WorkerStatus
from headrace_contracts.job import JobBody
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.names import Bucket, Lane, Stream
from headrace_contracts.result import Result
from headrace_contracts.scaling import Scaling
from headrace_contracts.settings import NatsSettings, ScalerSettings, Settings
from headrace_contracts.tasks.registry import Task
from headrace_scaler.launchers.exec_spawner import ExecSpawner
from headrace_scaler.launchers.local import LocalLauncher
from headrace_scaler.launchers.port import Launcher
from headrace_scaler.service import Scaler
from headrace_scaler.telling import Told
from headrace_storage.connection import Connection
from headrace_storage.jobs import submit_job
from headrace_storage.leadership import leader_of
from headrace_storage.registry import add_model, remove_model
from headrace_storage.results import wait_result
from headrace_storage.workers import list_workers

DEADLINE_S = 60.0
# Goes to zero at once: what is tested is that it does, and not for how long it waits.
QUICK = Scaling(max_workers=1, idle_timeout_s=0.5, scale_down_delay_s=0.5, cooldown_s=0.5)


class Stage:
    """One broker, one folder for workers, and the models that a test adds."""

    def __init__(self, connection: Connection, url: str, folder: Path) -> None:
        self.connection = connection
        self.url = url
        self.folder = folder
        self.settings = Settings(nats=NatsSettings(url=url), scaler=ScalerSettings(cpu_slots=4, gpus=False))
        self.environment = {**os.environ, "NATS_URL": url, "HEADRACE_ALLOW_UNSAFE_BROKER": "1"}
        self.decisions: list[ScalingDecision] = []
        self.cold_starts: list[WorkerColdStart] = []
        self.seen: dict[str, WorkerStatus] = {}
        """Every worker that ever had a heartbeat."""
        self._heard = asyncio.Event()
        self._models: list[str] = []
        self._scalers: list[asyncio.subprocess.Process] = []

    async def listen(self) -> None:
        async def on_message(message: object) -> None:
            _, kind, _ = message.subject.split(".")
            if kind == "decision":
                self.decisions.append(msgspec.json.decode(message.data, type=ScalingDecision))
            elif kind == "cold_start":
                self.cold_starts.append(msgspec.json.decode(message.data, type=WorkerColdStart))
            self._heard.set()

        async def on_heartbeat(message: object) -> None:
            if message.data:
                status = msgspec.json.decode(message.data, type=WorkerStatus)
                self.seen[status.id] = status
            self._heard.set()

        await self.connection.nc.subscribe("alerts.>", cb=on_message)
        await self.connection.nc.subscribe(f"$KV.{Bucket.WORKERS}.*", cb=on_heartbeat)
        await self.connection.nc.flush()

    async def add_model(self, name: str, scaling: Scaling = QUICK, **fields: object) -> ModelSpec:
        spec = ModelSpec(name, Task.SYNTHETIC, EngineKind.SYNTHETIC, scaling=scaling, **fields)  # type: ignore[arg-type]
        await add_model(self.connection, spec, ack_wait_s=3.0)
        self._models.append(name)
        return spec

    async def submit(self, model: str, lane: Lane = Lane.NORMAL, **task_input: object) -> str:
        body = msgspec.json.decode(msgspec.json.encode({"input": task_input}), type=JobBody)
        return (await submit_job(self.connection, "acme", model, lane, body, Encoding.JSON)).job_id

    async def result(self, model: str, job_id: str) -> Result:
        async with asyncio.timeout(DEADLINE_S):
            return await wait_result(self.connection, "acme", model, job_id)

    async def until(self, what: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        """Wait until something that was heard makes `what` true."""
        async with asyncio.timeout(deadline_s):
            while not what():
                self._heard.clear()
                try:
                    async with asyncio.timeout(0.2):
                        await self._heard.wait()
                except TimeoutError:
                    continue

    async def until_decided(self, model: str, wanted: Callable[[ScalingDecision], bool]) -> ScalingDecision:
        await self.until(lambda: any(wanted(decision) for decision in self.of(model)))
        return next(decision for decision in self.of(model) if wanted(decision))

    async def until_no_worker(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while await list_workers(self.connection) or self.worker_pids():
                await asyncio.sleep(0.05)

    def now(self) -> datetime:
        return SystemClock().now()

    def of(self, model: str) -> list[ScalingDecision]:
        return [decision for decision in self.decisions if decision.model == model]

    def started(self, model: str) -> int:
        return sum(decision.started for decision in self.of(model))

    def worker_pids(self) -> list[int]:
        """Worker processes of this stage that run, whoever started them."""
        mark = str(self.folder)
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            info = process.info
            if "headrace_workers" in (info["cmdline"] or []) and mark in (info["environ"] or {}).get("TMPDIR", ""):
                found.append(process.pid)
        return found

    @asynccontextmanager
    async def launcher(self, folder: str = "workers") -> AsyncIterator[LocalLauncher]:
        place, settings = self.folder / folder, self.settings.scaler
        async with (
            ExecSpawner() as spawner,
            LocalLauncher(place, settings, spawner, self.environment, SystemClock()) as launcher,
        ):
            yield launcher

    @asynccontextmanager
    async def scaler(
        self, launcher: Launcher | None = None, on_told: Callable[[Told], None] = lambda _told: None
    ) -> AsyncIterator[Scaler]:
        """A scaler in this process that leads, on a launcher of local processes unless another is given."""
        async with self.launcher() as own:
            scaler = Scaler(self.settings, launcher or own, SystemClock(), on_told)
            running = asyncio.create_task(scaler.run())
            leading = asyncio.create_task(scaler.leading.wait())
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await asyncio.wait([running, leading], return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    running.result()
                yield scaler
            finally:
                leading.cancel()
                running.cancel()
                await asyncio.wait([running, leading])

    async def scaler_process(self, folder: str = "workers") -> asyncio.subprocess.Process:
        """`headrace scaler` as a process of its own; another folder stands for another machine."""
        config = self.folder / "headrace.toml"
        config.write_text("[scaler]\ncpu_slots = 4\ngpus = false\nzygote = false\n")
        with (self.folder / "scaler.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headrace_scaler", "--dir", str(self.folder / folder)),
                env={**self.environment, "HEADRACE_CONFIG": str(config)},
                stderr=log,
            )
        self._scalers.append(process)
        return process

    async def until_leader(self, wanted: Callable[[str], bool]) -> str:
        """Wait until a scaler leads whose name is as wanted."""
        async with asyncio.timeout(DEADLINE_S):
            while (leader := await leader_of(self.connection, "scaler")) is None or not wanted(leader):
                await asyncio.sleep(0.05)
        return leader

    async def close(self) -> None:
        for process in self._scalers:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            await process.wait()
        for pid in self.worker_pids():
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                worker = psutil.Process(pid)
                os.killpg(pid, signal.SIGKILL)
                # Those that were started in this process are its children: nobody else takes them away.
                await asyncio.to_thread(worker.wait)
        for model in self._models:
            await remove_model(self.connection, model)
            for lane in Lane:
                await self.connection.js.delete_consumer(Stream.JOBS, f"{model}-{lane}")
        await self.connection.js.purge_stream(Stream.JOBS)
        await self.connection.js.purge_stream(f"KV_{Bucket.LEASES}")
        await self.connection.js.purge_stream(f"KV_{Bucket.WORKERS}")
