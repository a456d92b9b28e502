"""`headrace reap`: the reaper in the foreground, for whoever has no worker running."""

import asyncio
import os
import signal
import socket

import click

from headrace.cli.failures import LATER
from headrace.cli.output import show_table
from headrace_contracts.clock import SystemClock
from headrace_contracts.settings import Settings, load_settings
from headrace_storage.blobs import open_blobs
from headrace_storage.connection import Connection
from headrace_storage.leadership import Leadership, LeaseName
from headrace_storage.reaper import Act, Reaper, Trouble, reap
from headrace_storage.reaper.duty import Duty
from headrace_storage.topology import ensure_topology


@click.command("reap")
@click.option("--once", is_flag=True, help="Do everything one time, print what was done, and return.")
@click.pass_context
def reap_(ctx: click.Context, once: bool) -> None:
    """End jobs that nobody else can end, and remove files and records that nobody will use any more.

    Workers do so too, one at a time; this is for when none runs.
    """
    settings = load_settings()
    ctx.exit(asyncio.run(_once(settings) if once else _until_stopped(settings)))


async def _once(settings: Settings) -> int:
    told: list[Act | Trouble] = []
    async with Connection(settings.nats, name="headrace-reap") as connection:
        await ensure_topology(connection)
        leadership = Leadership(connection, LeaseName.REAPER, _holder(), SystemClock())
        if not await leadership.acquire():
            click.echo(f"nothing done: {leadership.holder} reaps already, all the time", err=True)
            return LATER
        async with open_blobs(settings, connection.nc) as blobs:
            duty = Duty(connection, SystemClock(), leadership.check, told.append)
            finished = await leadership.during(Reaper(duty, blobs, settings.reaper).once)
    acts = [act for act in told if isinstance(act, Act)]
    if acts:
        show_table(("RULE", "WHAT", "DONE"), [(act.rule.value, act.what, act.done) for act in acts])
    else:
        click.echo("nothing to do", err=True)
    troubles = [trouble for trouble in told if isinstance(trouble, Trouble)]
    for trouble in troubles:
        click.echo(f"{trouble.rule}: {trouble.error}", err=True)
    if not finished:
        click.echo("stopped half-way: the lease was lost", err=True)
    return LATER if troubles or not finished else 0


async def _until_stopped(settings: Settings) -> int:
    def tell(what: Act | Trouble) -> None:
        match what:
            case Act():
                click.echo(f"{what.rule}\t{what.what}\t{what.done}")
            case Trouble():
                click.echo(f"{what.rule}: {what.error}", err=True)

    async with Connection(settings.nats, name="headrace-reap") as connection:
        await ensure_topology(connection)
        async with open_blobs(settings, connection.nc) as blobs:
            reaping = asyncio.create_task(reap(connection, blobs, settings.reaper, _holder(), SystemClock(), tell))
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, reaping.cancel)
            await asyncio.wait([reaping])
    if not reaping.cancelled():
        reaping.result()
    return 0


def _holder() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"
