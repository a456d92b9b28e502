"""Zygotes under test, and workers that they fork; whatever is left over is ended."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import psutil
from lives import command_of, until_ended
from rig import DEADLINE_S, Rig

from headrace_contracts.heartbeat import EngineState, WorkerStatus
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.tasks.registry import Task
from headrace_contracts.zygote import LAUNCHED_AT_VARIABLE
from headrace_scaler.launchers.zygote import ZygoteSpawner
from headrace_scaler.launchers.zygote_process import ZygoteProcess

SYNTHETIC = ModelSpec("any", Task.SYNTHETIC, EngineKind.SYNTHETIC)


class ExecSpawner:
    """As a worker is started without a zygote."""

    def __init__(self) -> None:
        self.processes: list[asyncio.subprocess.Process] = []

    async def spawn(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, status: Path) -> int:
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headrace_workers", *arguments), env=environment, stderr=output
            )
        self.processes.append(process)
        return process.pid


class ForkedWorkers:
    """A rig's workers, forked by one zygote."""

    def __init__(self, rig: Rig, zygote: ZygoteProcess) -> None:
        self.rig = rig
        self.zygote = zygote
        self.log = rig.folder / "worker.log"
        self.status = rig.folder / "worker.status"
        self.otherwise = ExecSpawner()
        self.pids: list[int] = []

    async def spawn(self, *arguments: str) -> int:
        environment = {**self.rig.environment, LAUNCHED_AT_VARIABLE: repr(time.time())}
        spawner = ZygoteSpawner(self.zygote.path, self.otherwise)
        command = ("--model", self.rig.model, *arguments)
        self.pids.append(await spawner.spawn(command, environment, self.log, self.status))
        return self.pids[-1]

    async def ready(self, pid: int, wanted: Callable[[WorkerStatus], bool] = lambda _: True) -> WorkerStatus:
        return await self.rig.until(
            lambda status: status.pid == pid and status.engines[0].state is EngineState.READY and wanted(status)
        )

    async def start(self, *arguments: str) -> WorkerStatus:
        return await self.ready(await self.spawn(*arguments))

    def engine(self) -> psutil.Process:
        """The engine process that the zygote has forked."""
        [engine] = [child for child in psutil.Process(self.zygote.pid).children() if is_engine(child)]
        return engine

    async def status_line(self) -> str:
        """What the zygote wrote of a worker's end."""
        async with asyncio.timeout(DEADLINE_S):
            while not self.status.exists() or not self.status.read_text():
                await asyncio.sleep(0.01)
        return self.status.read_text()

    async def stop(self) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self.pids:
            await until_ended(pid)
        for process in self.otherwise.processes:
            await process.wait()


def is_engine(process: psutil.Process) -> bool:
    return "headrace_workers.engine_process" in command_of(process)


@contextlib.asynccontextmanager
async def zygote_of(
    folder: Path, specs: Sequence[ModelSpec] = (SYNTHETIC,), cache: Path | None = None
) -> AsyncIterator[ZygoteProcess]:
    """A warm zygote."""
    async with ZygoteProcess(specs, cache or folder, dict(os.environ), folder / "zygote.log") as zygote:
        async with asyncio.timeout(DEADLINE_S):
            await zygote.warm.wait()
        yield zygote


@contextlib.asynccontextmanager
async def forking(rig: Rig, zygote: ZygoteProcess | None = None) -> AsyncIterator[ForkedWorkers]:
    """A rig whose workers are forked, by a zygote of its own unless there is one."""
    async with contextlib.AsyncExitStack() as stack:
        workers = ForkedWorkers(rig, zygote or await stack.enter_async_context(zygote_of(rig.folder)))
        try:
            yield workers
            await rig.until_drained()
        finally:
            await workers.stop()
