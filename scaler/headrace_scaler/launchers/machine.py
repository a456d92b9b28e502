"""This machine as a place for workers: its slots, and a warm parent that they are forked from, unless switched off."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from headrace_contracts.clock import Clock
from headrace_contracts.model import ModelSpec
from headrace_contracts.settings import Settings
from headrace_scaler.launchers.exec_spawner import ExecSpawner
from headrace_scaler.launchers.local import LocalLauncher
from headrace_scaler.launchers.spawner import Spawner
from headrace_scaler.launchers.zygote import ZygoteSpawner
from headrace_scaler.launchers.zygote_process import ZygoteProcess


class Machine:
    """What is entered: the launcher, and the warm parent if there is one."""

    def __init__(self, launcher: LocalLauncher, zygote: ZygoteProcess | None) -> None:
        self.launcher = launcher
        self.zygote = zygote


@asynccontextmanager
async def this_machine(
    folder: Path,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    *,
    models: Sequence[ModelSpec] = (),
    takes_along: bool = False,
) -> AsyncIterator[Machine]:
    """Workers on the slots of this machine; on exit they run on.

    Args:
        folder: for what is known of workers, and their logs; made if missing.
        settings: slots, the warm parent, and the weight cache.
        environment: the workers' variables.
        clock: for orders and graces.
        models: what the warm parent imports libraries for; none: for every engine that is installed.
        takes_along: workers do not outlive this process, however it ends.

    Raises:
        LaunchError: the folder is in use, or cannot be written.
    """
    async with contextlib.AsyncExitStack() as stack:
        spawner: Spawner = await stack.enter_async_context(ExecSpawner(dies_with_us=takes_along))
        zygote = None
        if settings.scaler.zygote:
            log = folder / "zygote.log"
            zygote = ZygoteProcess(models, settings.cache_path, environment, log, takes_along=takes_along)
            spawner = ZygoteSpawner(zygote.path, spawner)
        # First of all: it finds out whether the folder is ours.
        launcher = LocalLauncher(folder, settings.scaler, spawner, workers_environment(environment, settings), clock)
        await stack.enter_async_context(launcher)
        if zygote is not None:
            await stack.enter_async_context(zygote)
        yield Machine(launcher, zygote)


def workers_environment(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Variables of a worker on this machine: it takes any port for its metrics, since ours and its siblings' are taken.

    Without metrics of the scaler nobody would find theirs.
    """
    return {**environment, "HEADRACE_METRICS_PORT": "-1" if settings.metrics.port else "0"}
