"""Results and tables as text: what was made on standard output, what was said about it on standard error."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import msgspec

from headrace.cli.failures import FAILED
from headrace.results import JobResult
from headrace_contracts.result import Status

# Shorter times would be shown as zero.
SHOWN_S = 0.005


async def show_result(result: JobResult, folder: Path | None, as_json: bool, *, text_shown: bool = False) -> int:
    """Save the artifacts, if there is a folder for them, print what the job made, and return the exit code."""
    paths = [] if folder is None else [await artifact.save(folder) for artifact in result.artifacts]
    if as_json:
        show_json({**result.as_json(), **({} if folder is None else {"saved": [str(path) for path in paths]})})
    else:
        _show_made(result, paths, text_shown)
        if result.error is not None:
            click.echo(f"error: {result.error.message} [{result.error.code}, fault: {result.error.fault}]", err=True)
        click.echo(summary(result), err=True)
    return 0 if result.status is Status.SUCCEEDED else FAILED


def _show_made(result: JobResult, paths: list[Path], text_shown: bool) -> None:
    if result.text is not None and not text_shown:
        click.echo(result.text)
    for path in paths:
        click.echo(str(path))
    if result.artifacts and not paths:
        for artifact in result.artifacts:
            click.echo(f"{artifact.name}\t{artifact.content_type}\t{artifact.size_bytes} bytes")
        click.echo(f"save: headrace result {result.id} -o FOLDER", err=True)
    if result.output is not None and result.text is None and not result.artifacts:
        show_json(result.output)


def summary(result: JobResult) -> str:
    """One line: how it ended, and where the time went."""
    times = msgspec.structs.asdict(result.timings)
    spent = ", ".join(f"{name.removesuffix('_s')} {s:.2f} s" for name, s in times.items() if s >= SHOWN_S)
    attempts = f", {result.attempts} attempts" if result.attempts > 1 else ""
    where = f" on {result.worker}" if result.worker else ""
    return f"{result.id} {result.status}{where}{attempts}" + (f": {spent}" if spent else "")


def show_json(value: object) -> None:
    """Print a value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table: drawn on a terminal, tab-separated elsewhere."""
    if not sys.stdout.isatty():
        for row in (headings, *rows):
            click.echo("\t".join(" ".join(cell.split()) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
