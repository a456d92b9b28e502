"""`headrace scaler`: one scaler in the foreground."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from headrace_contracts.clock import Clock, SystemClock
from headrace_contracts.errors import SettingsError
from headrace_contracts.settings import ScalerSettings, data_folder, load_settings
from headrace_scaler.launchers.machine import this_machine
from headrace_scaler.launchers.port import Launcher
from headrace_scaler.launchers.zygote_process import ZygoteProcess
from headrace_scaler.metrics import ScalerMetrics
from headrace_scaler.service import Scaler
from headrace_telemetry.logs import configure_logs

if TYPE_CHECKING:
    from headrace_scaler.launchers.docker.launcher import DockerLauncher

MEMORY_EVERY_S = 10.0


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder for what is known of started workers, and their logs.  [default: XDG data]",
)
@click.option(
    "--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True
)
def scaler(folder: Path | None, log_level: str) -> None:
    """Start and stop the workers of all models of the registry on this machine, until SIGTERM or Ctrl-C.

    Workers run on when it ends: the next start on the same folder finds them. Of several scalers on one broker, one
    acts and the others wait for it to end. How many workers a model may have is in its entry: see `headrace scale`.
    """
    configure_logs(log_level, component="scaler")
    asyncio.run(_scale((folder or data_folder(os.environ) / "scaler").expanduser().absolute()))


async def _scale(folder: Path) -> None:
    settings, clock = load_settings(), SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        launcher: Launcher
        if settings.scaler.launcher == "docker":
            launcher, zygote = await stack.enter_async_context(_docker(settings.scaler, clock)), None
        else:
            machine = await stack.enter_async_context(this_machine(folder, settings, os.environ, clock))
            launcher, zygote = machine.launcher, machine.zygote
        scaler = Scaler(settings, launcher, clock)
        working = asyncio.gather(scaler.run(), _watch_memory(zygote, scaler.metrics))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, working.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await working


def _docker(settings: ScalerSettings, clock: Clock) -> "DockerLauncher":
    """Imported only here: its client is an extra."""
    try:
        from headrace_scaler.launchers.docker.launcher import DockerLauncher
    except ImportError as error:
        raise SettingsError(
            f"`scaler.launcher` is docker, and {error.name} is not installed: pip install 'headrace[docker]'"
        ) from error
    return DockerLauncher(settings, os.environ, clock)


async def _watch_memory(zygote: ZygoteProcess | None, metrics: ScalerMetrics) -> NoReturn:
    """What the warm parent costs while nothing runs."""
    while True:
        use = None if zygote is None else await zygote.memory()
        metrics.zygote(None if use is None else use.pss_bytes)
        await asyncio.sleep(MEMORY_EVERY_S)
