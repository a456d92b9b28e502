"""Worker processes that are started again whatever ends them, each with wires of its own to the brokers."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from headrace_loadgen.system.proxy import Proxy
from headrace_local.child import Child

PRODUCTION = (sys.executable, "-m", "headrace_workers")
# A little more than a worker itself gives to what runs; then it is stuck.
STOP_DEADLINE_S = 45.0
RESTART_PAUSE_S = 0.2


class Worker:
    """One worker: a supervisor process and its engines."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.wires: list[Proxy] = []
        self.up = asyncio.Event()
        """Set while a process runs."""
        self.ended = asyncio.Event()
        """Set when a process has ended; cleared at a start."""
        self.how = ""
        """How the last process ended."""
        self.served = False
        """Whether the present process has got as far as to have engines."""
        self._command = command
        self._environment = environment
        self._folder = folder
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self._child is not None, "never started"
        return self._child.pid

    def engines(self) -> list[int]:
        """Process ids of its engines."""
        try:
            children = psutil.Process(self.pid).children(recursive=True)
            return [child.pid for child in children if any("engine_process" in word for word in child.cmdline())]
        except psutil.NoSuchProcess:
            return []

    def pids(self) -> tuple[int, ...]:
        """Supervisor and engines."""
        return (self.pid, *self.engines())

    async def start(self) -> None:
        """Start a process; its engines become ready later."""
        scratch = self._folder / f"{self.name}-scratch"
        shutil.rmtree(scratch, ignore_errors=True)  # a worker that was killed could not clean up
        scratch.mkdir(parents=True)
        environment = {
            **self._environment,
            "TMPDIR": str(scratch),
            "NATS_URL": ",".join(f"nats://127.0.0.1:{wire.port}" for wire in self.wires),
        }
        log = self._folder / f"{self.name}.log"
        self._child = await Child.start(self._command, log, signal.SIGKILL, environment)
        self.served = False
        self.ended.clear()
        self.up.set()

    async def wait(self) -> str:
        """Wait for the end of the process, and say how it came."""
        assert self._child is not None
        self.how = await self._child.wait()
        self._child.kill_now()  # what it left behind
        self.up.clear()
        self.ended.set()
        return self.how

    def send(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def end(self) -> None:
        """End the process and its engines at once."""
        if self._child is not None:
            self.send(signal.SIGCONT)
            await self._child.kill()


class Fleet:
    """Keeps its workers running until `drain` or the end of the block."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = list(workers)
        self.by_themselves: list[str] = []
        """How workers ended that served, and that nobody had touched."""
        self.failed_starts: list[str] = []
        """How workers ended that had not come as far: whoever keeps them starts them again."""
        self.exits: list[str] = []
        """How workers ended that were told to stop."""
        self.touched: set[int] = set()
        """Processes that a fault was meant for."""
        self._stopping = False
        self._keeping: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Fleet":
        for worker in self.workers:
            await worker.start()
            self._keeping.append(asyncio.create_task(self._keep(worker)))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stopping = True
        for worker in self.workers:
            await worker.end()
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def terminate(self, worker: Worker) -> str:
        """SIGTERM to a worker that serves; how the process ended. It is killed if it does not end."""
        with contextlib.suppress(TimeoutError):
            # Before it has an engine it may not have got as far as to listen to signals.
            async with asyncio.timeout(STOP_DEADLINE_S):
                while not worker.engines():  # noqa: ASYNC110 - another process: only looking tells
                    await asyncio.sleep(0.02)
        self.touched.add(worker.pid)
        worker.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_DEADLINE_S):
                await worker.ended.wait()
        except TimeoutError:
            self.exits.append(f"nothing, {STOP_DEADLINE_S:g} s after SIGTERM")
            await worker.end()
            return self.exits[-1]
        self.exits.append(worker.how)
        return worker.how

    async def drain(self) -> None:
        """Tell all workers to stop, and start no more."""
        self._stopping = True
        await asyncio.gather(*(self.terminate(worker) for worker in self.workers if worker.up.is_set()))

    async def _keep(self, worker: Worker) -> None:
        while True:
            pid = worker.pid
            watching = asyncio.create_task(_until_it_serves(worker))
            how = await worker.wait()
            watching.cancel()
            if self._stopping:
                return
            if pid not in self.touched:
                (self.by_themselves if worker.served else self.failed_starts).append(f"{worker.name}: {how}")
            await asyncio.sleep(RESTART_PAUSE_S)
            if self._stopping:
                return
            await worker.start()


async def _until_it_serves(worker: Worker) -> None:
    while not worker.engines():  # noqa: ASYNC110 - another process: only looking tells
        await asyncio.sleep(0.1)
    worker.served = True
