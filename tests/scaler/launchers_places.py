"""Places where workers can run, as the conformance suite sees them: a launcher, and hands that reach in."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from headrace_contracts.clock import SystemClock
from headrace_contracts.cost import SlotKind
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.launchers.exec_spawner import WORKER, ExecSpawner
from headrace_scaler.launchers.gpus import Gpu, GpuFault, GpuMemory, Gpus
from headrace_scaler.launchers.local import LocalLauncher
from headrace_scaler.launchers.port import Launched, Launcher, Order
from headrace_scaler.launchers.process import ProcessMark, kill_session, runs
from headrace_scaler.launchers.records import Record
from headrace_scaler.launchers.zygote import ZygoteSpawner
from headrace_scaler.policy.observation import Need

DEADLINE_S = 60.0
LONG_S = 600.0
GIB = 1 << 30
STAND_IN = ("sh", str(Path(__file__).with_name("launchers_stand_in.sh")))
"""A worker that starts in no time."""


class Place(Protocol):
    """One kind of platform, with room for three workers in `slot`, and with a slot `gpu:0` that is broken."""

    slot: str
    keeps_stopped: bool
    """Whether it still tells of a worker that was stopped how it ended."""

    def launcher(self) -> AbstractAsyncContextManager[Launcher]:
        """Another launcher on the same platform."""
        ...

    def order(self, worker: str = "", slot: str = "", size: int = 1) -> Order:
        """An order for a worker that waits for jobs."""
        ...

    def failing_order(self) -> Order:
        """An order for a worker that soon ends with `exit status 1` and an error."""
        ...

    def crash(self, worker: str) -> None:
        """End a running worker from outside: SIGKILL."""
        ...

    def hang(self, worker: str) -> None:
        """Let a running worker do nothing any more, not even end."""
        ...

    def processes(self) -> int:
        """How many workers really run."""
        ...


class BrokenGpu:
    """A machine with one GPU, which was lost."""

    def find(self) -> tuple[Gpu, ...]:
        return (Gpu(0, "GPU-lost"),)

    def memory(self, gpu: Gpu) -> GpuMemory:
        raise GpuFault("GPU is lost")


class GoodGpus:
    """A machine with two GPUs."""

    def find(self) -> tuple[Gpu, ...]:
        return (Gpu(0, "GPU-aa"), Gpu(1, "GPU-bb"))

    def memory(self, gpu: Gpu) -> GpuMemory:
        return GpuMemory(80 * GIB, 80 * GIB)


class LocalPlace:
    """This machine. The worker is `program`: the real one, or a stand-in that starts in no time.

    Or it is forked from the warm parent whose socket is `zygote`.
    """

    slot = "cpu"
    keeps_stopped = True

    def __init__(
        self,
        folder: Path,
        model: str,
        environment: Mapping[str, str],
        program: Sequence[str] = WORKER,
        settings: ScalerSettings | None = None,
        zygote: Path | None = None,
    ) -> None:
        self.folder = folder
        self.model = model
        self.environment = environment
        self.program = program
        self.settings = settings or ScalerSettings(cpu_slots=3)
        self.zygote = zygote
        self.gpus: Gpus = BrokenGpu()
        self._seen: set[ProcessMark] = set()

    @contextlib.asynccontextmanager
    async def launcher(self):
        async with ExecSpawner(self.program) as by_exec:
            spawner = by_exec if self.zygote is None else ZygoteSpawner(self.zygote, by_exec)
            launcher = LocalLauncher(
                self.folder, self.settings, spawner, self.environment, SystemClock(), gpus=self.gpus
            )
            async with launcher:
                try:
                    yield launcher
                finally:
                    self._marks()

    def order(self, worker: str = "", slot: str = "", size: int = 1) -> Order:
        slot = slot or self.slot
        kind = SlotKind.CPU if slot == "cpu" else SlotKind.GPU
        return Order(worker or f"w-{uuid.uuid4().hex[:8]}", self.model, slot, Need(kind, size))

    def failing_order(self) -> Order:
        return msgspec.structs.replace(self.order(), model="no-such-model")

    def crash(self, worker: str) -> None:
        os.kill(self.pid(worker), signal.SIGKILL)

    def hang(self, worker: str) -> None:
        os.kill(self.pid(worker), signal.SIGSTOP)

    def processes(self) -> int:
        return sum(runs(mark) for mark in self._marks())

    def record(self, worker: str) -> Record:
        """What is on disk."""
        return msgspec.json.decode((self.folder / f"{worker}.json").read_bytes(), type=Record)

    def pid(self, worker: str) -> int:
        process = self.record(worker).process
        assert process is not None
        return process.pid

    def log(self, worker: str) -> str:
        return (self.folder / "logs" / f"{worker}.log").read_text()

    def clear(self) -> None:
        """End every process of every worker there was, and wait for it: nobody else does, once its launcher is gone."""
        for mark in self._marks():
            kill_session(mark)
        for mark in self._marks():
            with contextlib.suppress(ChildProcessError):
                for _ in range(1000):
                    if os.waitpid(mark.pid, os.WNOHANG) != (0, 0):
                        break
                    time.sleep(0.01)

    def _marks(self) -> set[ProcessMark]:
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(msgspec.MsgspecError):
                process = msgspec.json.decode(path.read_bytes(), type=Record).process
                if process is not None:
                    self._seen.add(process)
        return self._seen


async def until(launcher: Launcher, true: Callable[[tuple[Launched, ...]], object]) -> tuple[Launched, ...]:
    """Wait until what runs is as wanted."""
    running: tuple[Launched, ...] = ()
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not true(running := await launcher.running()):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"still {running}") from None
    return running


async def ended(launcher: Launcher, worker: str) -> str:
    """Wait for the end of a worker; how it came."""
    running = await until(launcher, lambda all_: any(each.worker == worker and each.ended is not None for each in all_))
    return next(each.ended or "" for each in running if each.worker == worker)


async def free(launcher: Launcher, slot: str) -> int:
    return next(each.free for each in await launcher.slots() if each.id == slot)


def order(place: LocalPlace, model: str) -> Order:
    """An order for a worker of a model of this name."""
    return msgspec.structs.replace(place.order(), model=model)


async def logged(place: LocalPlace, worker: str, words: str) -> None:
    """Wait until a worker's log has these words."""
    async with asyncio.timeout(DEADLINE_S):
        while words not in place.log(worker):
            await asyncio.sleep(0.01)
