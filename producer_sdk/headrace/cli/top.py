"""`headrace top`: every model, its queue and its workers, live."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator

import click
import msgspec

from headrace.cli.output import show_json, show_table
from headrace.cli.session import with_client
from headrace.cli.top_text import HEADINGS, header_lines, table_rows
from headrace.client import Client
from headrace.top import Looker, View
from headrace_contracts.clock import SystemClock

Show = Callable[[View], None]


@click.command()
@click.option("--once", is_flag=True, help="Look once, print it, and return.")
@click.option("--interval-s", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="How often to look.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one value with --once, else one a line.")
def top(once: bool, interval_s: float, as_json: bool) -> None:
    """Watch models, their queues and their workers, until Ctrl-C.

    On a terminal the table is drawn in place; elsewhere it is printed again and again, as text. A broker that is away
    is waited for.
    """
    with_client(lambda client: _once(client, as_json) if once else _until_stopped(client, interval_s, as_json))


async def _once(client: Client, as_json: bool) -> None:
    view = await Looker(client.connection, SystemClock()).look()
    if as_json:
        show_json(msgspec.to_builtins(view, str_keys=True))
    else:
        _print(view)


async def _until_stopped(client: Client, interval_s: float, as_json: bool) -> None:
    with _display(as_json) as show:
        watching = asyncio.create_task(_watch(client, interval_s, show))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, watching.cancel)
        await asyncio.wait([watching])
    if not watching.cancelled():
        watching.result()


async def _watch(client: Client, interval_s: float, show: Show) -> None:
    looker = Looker(client.connection, SystemClock())
    while True:
        show(await looker.look())
        await asyncio.sleep(interval_s)


@contextlib.contextmanager
def _display(as_json: bool) -> Iterator[Show]:
    if as_json:
        yield lambda view: click.echo(msgspec.json.encode(view).decode())
    elif not sys.stdout.isatty():
        yield _print
    else:
        from rich.console import Console
        from rich.live import Live

        from headrace.cli.top_screen import drawn

        console = Console()
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="ellipsis") as live:
            yield lambda view: live.update(drawn(view, console.width), refresh=True)


def _print(view: View) -> None:
    """As text, or drawn, wherever it goes; what is about the whole goes before the table."""
    if sys.stdout.isatty():
        from rich.console import Console

        from headrace.cli.top_screen import drawn

        console = Console()
        console.print(drawn(view, console.width))
        return
    for line in header_lines(view):
        click.echo(line)
    show_table(HEADINGS, table_rows(view))
