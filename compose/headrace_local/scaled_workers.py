"""The workers of a local system, started and stopped by a scaler from what waits: models begin at zero.

The scaler runs in this process. Its workers end with it: their broker does, too.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from headrace_contracts.clock import Clock
from headrace_contracts.model import ModelSpec
from headrace_contracts.settings import Settings
from headrace_contracts.zygote import MemoryUse
from headrace_scaler.launchers.local import LocalLauncher
from headrace_scaler.launchers.machine import this_machine
from headrace_scaler.launchers.zygote_process import ZygoteProcess
from headrace_scaler.service import Scaler
from headrace_scaler.telling import Told
from headrace_telemetry.logs import configure_logs

# A little more than a worker itself gives to what runs; then it is stuck.
STOP_GRACE_S = 45.0
LOOK_EVERY_S = 0.05


class ScaledWorkers:
    """Workers of some models on the cores and GPUs of this machine.

    Args:
        models: what may be run; on its cores there is room for a worker of each at once.
        settings: how the broker is reached, and what the scaler may use.
        environment: the workers' variables.
        folder: for what is known of workers, and their logs.
        clock: for the scaler.
        on_told: called with everything that the scaler decides.
    """

    def __init__(
        self,
        models: Sequence[ModelSpec],
        settings: Settings,
        environment: Mapping[str, str],
        folder: Path,
        clock: Clock,
        on_told: Callable[[Told], None],
    ) -> None:
        cores = settings.scaler.cpu_slots or len(os.sched_getaffinity(0))
        # One machine, and somebody who tries every model in turn: none should wait for another's idle worker to end.
        room = max(cores, sum(spec.resources.threads for spec in models))
        self._settings = msgspec.structs.replace(
            settings, scaler=msgspec.structs.replace(settings.scaler, cpu_slots=room)
        )
        self._models = models
        self._environment = environment
        self._folder = folder
        self._clock = clock
        self._on_told = on_told
        self._running = contextlib.AsyncExitStack()
        self._launcher: LocalLauncher | None = None
        self._scaling: asyncio.Task[None] | None = None
        self.zygote: ZygoteProcess | None = None
        """The warm parent of the workers; None where it is switched off."""

    async def start(self) -> None:
        """Start the warm parent, and the scaler; returns when it leads.

        Raises:
            HeadraceError: the folder is in use or cannot be written, or the broker is not there.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            log = stack.enter_context((self._folder / "scaler.log").open("a", encoding="utf-8"))
            configure_logs(file=log, component="scaler")
            stack.callback(structlog.reset_defaults)
            machine = await stack.enter_async_context(
                this_machine(
                    self._folder,
                    self._settings,
                    self._environment,
                    self._clock,
                    models=self._models,
                    takes_along=True,
                )
            )
            self._launcher, self.zygote = machine.launcher, machine.zygote
            stack.push_async_callback(self._stop_workers)
            scaler = Scaler(self._settings, self._launcher, self._clock, on_told=self._on_told)
            self._scaling = asyncio.create_task(scaler.run())
            stack.push_async_callback(self._stop_scaling)
            leading = asyncio.create_task(scaler.leading.wait())
            await asyncio.wait([leading, self._scaling], return_when=asyncio.FIRST_COMPLETED)
            leading.cancel()
            if self._scaling.done():
                self._scaling.result()
            self._running = stack.pop_all()

    async def wait_warm(self, deadline_s: float) -> MemoryUse | None:
        """Wait until workers can be forked; what the warm parent costs. None: there is none, or not within the time."""
        if self.zygote is None:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self.zygote.warm.wait()
        return await self.zygote.memory()

    async def stop(self) -> None:
        """End the scaler, then every worker: what runs gets its grace, what does not is kept in the queue."""
        await self._running.aclose()

    async def wait(self) -> None:
        """Until the scaler ends by itself.

        Raises:
            HeadraceError: why it did.
        """
        assert self._scaling is not None, "not started"
        await asyncio.wait([self._scaling])
        if not self._scaling.cancelled():
            self._scaling.result()

    def hurry(self) -> None:
        """While stopping: do not wait for the jobs that run."""
        if self._launcher is not None:
            self._launcher.kill_all()

    async def _stop_scaling(self) -> None:
        assert self._scaling is not None
        self._scaling.cancel()
        await asyncio.wait([self._scaling])

    async def _stop_workers(self) -> None:
        assert self._launcher is not None
        for worker in await self._launcher.running():
            await self._launcher.stop(worker.worker, STOP_GRACE_S)
        while True:
            left = await self._launcher.running()
            for worker in left:
                if worker.ended is not None:
                    await self._launcher.forget(worker.worker)
            if not left:
                return
            await asyncio.sleep(LOOK_EVERY_S)
