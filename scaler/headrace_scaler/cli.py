"""`headrace scaler`: one scaler in the foreground."""

import asyncio
import os
import signal
from pathlib import Path

import click

from headrace_contracts.clock import SystemClock
from headrace_contracts.settings import load_settings
from headrace_scaler.launchers.exec_spawner import ExecSpawner
from headrace_scaler.launchers.local import LocalLauncher
from headrace_scaler.logs import configure_logs
from headrace_scaler.service import Scaler


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
    configure_logs(log_level)
    asyncio.run(_scale((folder or _default_folder()).expanduser().absolute()))


async def _scale(folder: Path) -> None:
    settings, clock = load_settings(), SystemClock()
    async with (
        ExecSpawner() as spawner,
        LocalLauncher(folder, settings.scaler, spawner, os.environ, clock) as launcher,
    ):
        scaling = asyncio.create_task(Scaler(settings, launcher, clock).run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, scaling.cancel)
        await asyncio.wait([scaling])
        if not scaling.cancelled():
            scaling.result()


def _default_folder() -> Path:
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "headrace" / "scaler"
