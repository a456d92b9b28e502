"""Workers as processes of this machine, on its cores and GPUs.

What runs is kept on disk (`Roster`), so that the next run of the scaler finds it: leaving this launcher stops nobody.
Time limits are kept by one background task, which looks after all workers once a second.
"""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import structlog

from headrace_contracts.clock import Clock
from headrace_contracts.names import is_token
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.launchers.gpu_watch import GpuState, GpuWatch
from headrace_scaler.launchers.gpus import Gpus, NvmlGpus
from headrace_scaler.launchers.port import Launched, LaunchError, Order
from headrace_scaler.launchers.process import ProcessMark, boot_id, mark_of
from headrace_scaler.launchers.records import VERSION, Record, RecordFolder
from headrace_scaler.launchers.roster import START_DEADLINE_S, Roster
from headrace_scaler.launchers.slots import cpu_slot, cuda_devices, gpu_slot, gpu_slot_id, refusal
from headrace_scaler.launchers.spawner import Spawner
from headrace_scaler.policy.observation import Slot

TEND_EVERY_S = 1.0
# A grace that is over may belong to a worker that nobody can find.
TEND_AGAIN_S = 0.02


class LocalLauncher:
    """The launcher of one machine. One uses a folder at a time."""

    def __init__(
        self,
        folder: Path,
        settings: ScalerSettings,
        spawner: Spawner,
        environment: Mapping[str, str],
        clock: Clock,
        gpus: Gpus | None = None,
    ) -> None:
        """Nothing is read or started yet.

        Args:
            folder: for records, logs and scratch files; the same one again finds the workers that run.
            settings: which cores and GPUs there are.
            spawner: how a worker process comes to be.
            environment: the workers' variables; CUDA_VISIBLE_DEVICES says which GPUs are ours.
            clock: for stop deadlines, and dates of orders.
            gpus: who is asked for GPUs; NVML if absent.
        """
        self._folder = folder
        self._spawner = spawner
        self._environment = dict(environment)
        self._clock = clock
        self._cores = settings.cpu_slots or len(os.sched_getaffinity(0))
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        self._gpus = GpuWatch(gpus or NvmlGpus(), clock, visible) if settings.gpus else None
        self._wake = asyncio.Event()
        self._said: dict[str, str] = {}
        self._log = structlog.get_logger()

    async def __aenter__(self) -> Self:
        self._files = RecordFolder.open(self._folder)
        self._roster = Roster(self._files, self._clock)
        try:
            self._roster.adopt()
            self._tasks = await asyncio.TaskGroup().__aenter__()
        except BaseException:
            self._files.close()
            raise
        self._tending = self._tasks.create_task(self._tend())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._tending.cancel()
        try:
            # Waits for a worker that is being started, so that its process id is written down, and for the cleaning.
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._files.close()

    @property
    def slots_note(self) -> str:
        """Why there are no GPU slots; empty if there are some."""
        return "`scaler.gpus` is false" if self._gpus is None else self._gpus.note

    async def slots(self) -> tuple[Slot, ...]:
        """The machine's cores and its GPUs."""
        return self._slots(await self._look_at_gpus())

    async def running(self) -> tuple[Launched, ...]:
        """Every worker that is not forgotten."""
        return self._roster.look()

    async def start(self, order: Order) -> None:
        """Start a worker; see `Launcher`."""
        if not is_token(order.worker):
            raise LaunchError(f"worker {order.worker!r} cannot be started: an id is 1 to 64 of A-Z a-z 0-9 _ -")
        states = await self._look_at_gpus()
        if order.worker in self._roster:
            return
        # From here to the record nothing waits: of two orders for one place the second sees the first.
        if reason := refusal(order, self._slots(states), self.slots_note):
            raise LaunchError(f"worker {order.worker} cannot be started: {reason}")
        devices = cuda_devices(order, states)
        record = self._record(order)
        try:
            self._roster.enter(record)
        except OSError as error:
            raise LaunchError(f"worker {order.worker} cannot be started: its record cannot be kept: {error}") from error
        # A task of its own: a caller that gives up does not end it half-way.
        starting = self._tasks.create_task(self._spawn(record, devices))
        if (failure := await asyncio.shield(starting)) is not None:
            raise failure

    async def stop(self, worker: str, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace of the first call."""
        self._roster.stop(worker, grace_s)
        self._wake.set()

    def kill_all(self) -> None:
        """End every worker at once, whatever it does: its jobs are delivered again when their leases are over."""
        self._roster.kill_all()

    async def forget(self, worker: str) -> None:
        """Drop what is kept of a worker that has ended. Its log stays for a while."""
        self._roster.forget(worker)

    def _record(self, order: Order) -> Record:
        ordered_at = self._clock.now().timestamp()
        return Record(
            VERSION,
            order.worker,
            order.model,
            order.slot,
            order.need,
            ordered_at,
            log=str(self._files.log(order.worker)),
            status=str(self._files.status(order.worker)),
            scratch=str(self._files.scratch(order.worker, ordered_at)),
        )

    async def _spawn(self, record: Record, devices: str) -> LaunchError | None:
        """Start the process, and write down which it is. A failure is returned: raised, it would end everything."""
        variables = {
            **self._environment,
            "CUDA_VISIBLE_DEVICES": devices,
            "TMPDIR": record.scratch,
            "HEADRACE_LAUNCHED_AT": f"{record.ordered_at:.6f}",
        }
        arguments = ["--model", record.model, "--id", record.worker, "--slot", record.slot]
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                pid = await self._spawner.spawn(arguments, variables, Path(record.log), Path(record.status))
        except LaunchError as error:
            failed = self._roster.not_started(record.worker)
            return LaunchError(f"worker {record.worker} cannot be started: {error}") if failed else None
        except TimeoutError:
            self._roster.perhaps_started(record.worker)
            return LaunchError(f"worker {record.worker} was not started within {START_DEADLINE_S:g} s")
        # None: it has ended, and its parent has waited for it. No worker starts at tick 0.
        self._roster.started(record.worker, mark_of(pid) or ProcessMark(pid, 0, boot_id()))
        return None

    async def _tend(self) -> None:
        while True:
            self._wake.clear()
            self._roster.look()
            self._roster.save_again()
            # A task of its own: leaving waits for it. Later, another launcher's folders would be strange to it.
            await asyncio.shield(self._tasks.create_task(asyncio.to_thread(self._roster.clean)))
            with contextlib.suppress(TimeoutError):
                next_kill_s = max(TEND_AGAIN_S, self._roster.until_next_kill_s())
                async with asyncio.timeout(min(TEND_EVERY_S, next_kill_s)):
                    await self._wake.wait()

    async def _look_at_gpus(self) -> tuple[GpuState, ...]:
        states = () if self._gpus is None else await self._gpus.look()
        said = {gpu_slot_id(index): state.health.quarantined for index, state in enumerate(states)}
        for slot, reason in said.items():
            if reason and reason != self._said.get(slot):
                self._log.warning("slot quarantined", slot=slot, reason=reason)
            elif self._said.get(slot) and not reason:
                self._log.info("slot usable again", slot=slot)
        if not states and self._said.get("") != self.slots_note:
            self._log.info("no GPU slots", reason=self.slots_note)
        self._said = said or {"": self.slots_note}
        return states

    def _slots(self, states: tuple[GpuState, ...]) -> tuple[Slot, ...]:
        running = [each for each in self._roster.look() if each.ended is None]
        return (
            cpu_slot(self._cores, running),
            *(gpu_slot(index, state, running) for index, state in enumerate(states)),
        )
