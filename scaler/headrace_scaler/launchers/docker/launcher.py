"""Workers as containers of a Docker Engine.

Everything that is known of a worker is on its container: leaving this launcher stops nobody, the next one finds all.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Self

import msgspec
import structlog

from headrace_contracts.clock import Clock
from headrace_contracts.names import is_token
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.launchers.docker.container import (
    WORKER,
    Json,
    end_of,
    kill_at_of,
    launched_of,
    name_of,
    name_until,
    other_networks,
    worker_container,
)
from headrace_scaler.launchers.docker.engine import Engine, NameTakenError
from headrace_scaler.launchers.gpu_watch import GpuState, GpuWatch
from headrace_scaler.launchers.gpus import Gpus, NvmlGpus
from headrace_scaler.launchers.port import Launched, LaunchError, Order
from headrace_scaler.launchers.slots import cpu_slot, cuda_devices, gpu_slot, refusal
from headrace_scaler.launchers.worker_logs import last_error_in
from headrace_scaler.policy.observation import Slot

# Between making a container and starting it.
START_DEADLINE_S = 15.0
# Number of a service's container; compose's own begin at 1.
_NUMBERS = 1_000_000


class DockerLauncher:
    """The launcher of one compose project on one Engine.

    Args:
        settings: which cores and GPUs are ours.
        environment: COMPOSE_PROJECT_NAME, where this process is no container of the project itself.
        clock: for orders and graces.
        gpus: who is asked for GPUs; NVML if absent.
    """

    def __init__(
        self, settings: ScalerSettings, environment: Mapping[str, str], clock: Clock, gpus: Gpus | None = None
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._clock = clock
        self._engine = Engine()
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        self._gpus = GpuWatch(gpus or NvmlGpus(), clock, visible) if settings.gpus else None
        self._cores = settings.cpu_slots
        self._project = environment.get("COMPOSE_PROJECT_NAME", "")
        self._starting: dict[str, Launched] = {}
        """Ordered; their containers are being made."""
        self._started: dict[str, Launched] = {}
        """Made since the Engine was last asked for all of them."""
        self._ends: dict[str, str] = {}
        """How containers ended, by their ids: it costs two questions, and never changes."""
        self._stopping: set[str] = set()
        """Containers whose end we wait for."""
        self._strange: set[str] = set()
        """Names of containers that only look like a worker's."""
        self._ordering = asyncio.Lock()
        self._log = structlog.get_logger()

    async def __aenter__(self) -> Self:
        await self._engine.__aenter__()
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._waiting: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(self, *exc: object) -> None:
        # The Engine goes on with what it was asked.
        for task in self._waiting:
            task.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self._engine.__aexit__()

    async def slots(self) -> tuple[Slot, ...]:
        """Cores of the Engine's machine, and its GPUs as far as this container may see them."""
        return self._slots(await self.running(), await self._look_at_gpus(), await self._all_cores())

    async def running(self) -> tuple[Launched, ...]:
        """Every worker of the project whose container is there."""
        project = await self._own_project()
        before = set(self._started)
        listed = await self._engine.workers(project)
        # What was made before the question is in the answer, or gone.
        self._started = {worker: each for worker, each in self._started.items() if worker not in before}
        found = {}
        for one in listed:
            if (launched := launched_of(one["Labels"])) is None:
                self._say_strange(_name(one))
                continue
            ended = await self._end(one, launched.ordered_at)
            found[launched.worker] = msgspec.structs.replace(launched, ended=ended)
        return tuple({**self._started, **self._starting, **found}.values())

    async def start(self, order: Order) -> None:
        """Make a container after the template of the model, and start it; see `Launcher`."""
        if not is_token(order.worker):
            raise LaunchError(f"worker {order.worker!r} cannot be started: an id is 1 to 64 of A-Z a-z 0-9 _ -")
        # One after the other: of two orders for one place the second sees the first.
        async with self._ordering:
            gpus, cores = await self._look_at_gpus(), await self._all_cores()
            running = await self.running()
            if any(each.worker == order.worker for each in running):
                return
            note = "`scaler.gpus` is false" if self._gpus is None else self._gpus.note
            if reason := refusal(order, self._slots(running, gpus, cores), note):
                raise LaunchError(f"worker {order.worker} cannot be started: {reason}")
            devices = cuda_devices(order, gpus)
            # As its label has it.
            ordered_at = round(self._clock.now().timestamp(), 6)
            self._starting[order.worker] = Launched(order.worker, order.model, order.slot, order.need, ordered_at)
        # A task of its own: a caller that gives up does not end it half-way.
        starting = self._tasks.create_task(self._start(order, ordered_at, devices))
        if (failure := await asyncio.shield(starting)) is not None:
            raise failure

    async def stop(self, worker: str, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace of the first call."""
        for listed in await self._of(worker):
            if listed["State"] != "running" or listed["Id"] in self._stopping:
                continue
            kill_at = kill_at_of(_name(listed))
            if kill_at is None:
                kill_at = self._clock.now().timestamp() + grace_s
                await self._engine.rename(listed["Id"], name_until(await self._own_project(), worker, kill_at))
            # Here, whatever becomes of us. A second one, from the stop of the Engine itself, changes nothing.
            await self._engine.terminate(listed["Id"])
            self._end_by(listed["Id"], kill_at)

    async def forget(self, worker: str) -> None:
        """Remove the container of a worker that has ended."""
        for listed in await self._of(worker):
            if listed["State"] not in ("running", "restarting", "paused") and worker not in self._starting:
                await self._engine.remove(listed["Id"])
                self._ends.pop(listed["Id"], None)

    async def _start(self, order: Order, ordered_at: float, devices: str) -> LaunchError | None:
        """A failure is returned: raised, it would end everything."""
        container = ""
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                project = await self._own_project()
                template = await self._engine.template(project, order.model)
                number = 2 + int(ordered_at * 1000) % _NUMBERS
                wanted = worker_container(template, order, ordered_at, devices, number)
                container = await self._engine.create(name_of(project, order.worker), wanted)
                for network in other_networks(template):
                    await self._engine.connect(container, network)
                await self._engine.start(container)
        except (LaunchError, NameTakenError, TimeoutError) as error:
            if container:
                self._look_away(partial(self._engine.remove, container))
            why = {
                NameTakenError: "another container has its name",
                TimeoutError: f"it was not started within {START_DEADLINE_S:g} s",
            }.get(type(error), str(error))
            return LaunchError(f"worker {order.worker} cannot be started: {why}")
        else:
            self._started[order.worker] = self._starting[order.worker]
            return None
        finally:
            del self._starting[order.worker]

    def _say_strange(self, container: str) -> None:
        """Once: it may stay for long."""
        if container not in self._strange:
            self._strange.add(container)
            self._log.warning(
                "a container has the label of a worker, and no others of ours: left alone", name=container
            )

    async def _end(self, listed: Json, ordered_at: float) -> str | None:
        """How a container ended; None while it runs, or is about to."""
        container, name = listed["Id"], _name(listed)
        if listed["State"] in ("running", "restarting", "paused"):
            if (kill_at := kill_at_of(name)) is not None and container not in self._stopping:
                # The scaler that told it to end did not live to see it, and maybe not to say so.
                self._end_by(container, kill_at)
            return None
        if listed["State"] == "created" and self._clock.now().timestamp() - ordered_at < START_DEADLINE_S:
            return None
        if container not in self._ends:
            found = await self._engine.inspect(container)
            if found is None:
                return "its container was removed"
            words = last_error_in(await self._engine.last_lines(container))
            self._ends[container] = end_of(found["State"], words, kill_at_of(name), found["HostConfig"]["Memory"])
        return self._ends[container]

    def _end_by(self, container: str, kill_at: float) -> None:
        grace_s = max(0.0, kill_at - self._clock.now().timestamp())
        self._stopping.add(container)
        self._look_away(partial(self._stop, container, grace_s))

    async def _stop(self, container: str, grace_s: float) -> None:
        try:
            await self._engine.stop(container, grace_s)
        finally:
            # Asked again at the next look, if it should still be there.
            self._stopping.discard(container)

    def _look_away(self, doing: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something whose end nobody waits for; what fails is seen at the next look."""

        async def do() -> None:
            try:
                await doing()
            except LaunchError as error:
                self._log.warning("the Engine did not do it", error=str(error))

        task = self._tasks.create_task(do())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _of(self, worker: str) -> list[Json]:
        listed = await self._engine.workers(await self._own_project())
        return [one for one in listed if one["Labels"][WORKER] == worker]

    async def _own_project(self) -> str:
        """Workers of other projects on the same Engine are not ours."""
        if not self._project:
            project = await self._engine.project_of(socket.gethostname())
            if project is None:
                raise LaunchError(
                    "the scaler runs in no container of a compose project: set COMPOSE_PROJECT_NAME to the project "
                    "whose workers it is to start"
                )
            self._project = project
        return self._project

    async def _all_cores(self) -> int:
        self._cores = self._cores or await self._engine.cores()
        return self._cores

    async def _look_at_gpus(self) -> tuple[GpuState, ...]:
        return () if self._gpus is None else await self._gpus.look()

    def _slots(self, running: tuple[Launched, ...], gpus: tuple[GpuState, ...], cores: int) -> tuple[Slot, ...]:
        present = [each for each in running if each.ended is None]
        return (cpu_slot(cores, present), *(gpu_slot(index, state, present) for index, state in enumerate(gpus)))


def _name(listed: Json) -> str:
    return str(listed["Names"][0])
