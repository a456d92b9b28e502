"""`python -m headrace_loadgen`: run chaos, or judge the evidence of an earlier run again."""

import shlex
import sys
import tempfile
from pathlib import Path
from typing import cast

import click
from rich.console import Console
from rich.status import Status

from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import HeadraceError
from headrace_loadgen import chaos as chaos_run
from headrace_loadgen.check import Verdict, check
from headrace_loadgen.evidence import Evidence, load_evidence
from headrace_loadgen.report import show, write_markdown
from headrace_loadgen.system.s3_server import S3Kind
from headrace_local.interrupt import run_until_signal

JOBS_PER_S = 20


@click.group()
def main() -> None:
    """Break Headrace on purpose, and look whether it keeps its promises."""


@main.command()
@click.option("--seed", default=0, show_default=True, help="Of the jobs and the faults.")
@click.option("--minutes", default=2.0, show_default=True, help="For how long jobs are sent and faults injected.")
@click.option("--jobs", type=int, help=f"How many, evenly over the time.  [default: {JOBS_PER_S} a second]")
@click.option("--workers", default=3, show_default=True, help="Worker processes.")
@click.option("--brokers", type=click.Choice(["1", "3"]), default="1", show_default=True, help="3: a cluster, R3.")
@click.option("--store", type=click.Choice(["juicefs", "weed"]), default="juicefs", show_default=True)
@click.option("--lease-s", default=3.0, show_default=True, help="The lease on a job: short, so that much happens.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="For stores and evidence, on a real disk.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there too.")
def chaos(
    seed: int,
    minutes: float,
    jobs: int | None,
    workers: int,
    brokers: str,
    store: str,
    lease_s: float,
    folder: Path | None,
    markdown: Path | None,
) -> None:
    """Send jobs while everything is killed, frozen, cut off and slowed down; then check every promise."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    if folder is None:
        parent = Path(".headrace") / "chaos"
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"seed-{seed}-", dir=parent))
    folder.mkdir(parents=True, exist_ok=True)
    count = jobs if jobs is not None else round(minutes * 60 * JOBS_PER_S)
    options = chaos_run.Options(
        seed, minutes, count, workers, int(brokers), cast("S3Kind", store), lease_s, folder.resolve()
    )
    console.print(f"seed {seed}: {count} jobs in {minutes:g} min, {workers} workers; evidence in {folder}")
    try:
        outcome = _run(options, console)
    except HeadraceError as error:
        raise click.ClickException(str(error)) from error
    if outcome is None:
        console.print(f"stopped; evidence so far in {folder}")
        sys.exit(130)
    command = shlex.join(["python", "-m", "headrace_loadgen", *sys.argv[1:]])
    _judge(*outcome, console, markdown, f"Chaos: seed {seed}, {count} jobs", command, folder)


@main.command("check")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def check_again(folder: Path) -> None:
    """Judge the evidence in FOLDER once more."""
    evidence = load_evidence(folder)
    _judge(evidence, check(evidence), Console(width=None if sys.stdout.isatty() else 140), None, "", "", folder)


def _run(options: chaos_run.Options, console: Console) -> tuple[Evidence, list[Verdict]] | None:
    """The run with its progress on the screen: one line that changes, or one line now and then where nobody looks."""
    live: Status | None = console.status("starting") if console.is_terminal else None
    told = 0.0
    clock = SystemClock()

    def say(progress: chaos_run.Progress) -> None:
        nonlocal told
        line = (
            f"{progress.phase}: {progress.sent} sent, {progress.accepted} accepted, {progress.ended} ended, "
            f"{progress.faults} faults"
        )
        if live is not None:
            live.update(line)
        elif clock.monotonic() - told > 10:
            told = clock.monotonic()
            console.print(line)

    if live is not None:
        live.start()
    try:
        return run_until_signal(chaos_run.run(options, clock, say), lambda: None, lambda: None)
    finally:
        if live is not None:
            live.stop()


def _judge(
    evidence: Evidence,
    verdicts: list[Verdict],
    console: Console,
    markdown: Path | None,
    heading: str,
    command: str,
    folder: Path,
) -> None:
    show(evidence, verdicts, console)
    if markdown is not None:
        write_markdown(evidence, verdicts, markdown, heading, command)
    broken = [verdict.invariant for verdict in verdicts if verdict.violations]
    console.print(f"evidence: {folder}")
    if broken:
        console.print(f"VIOLATED: {', '.join(broken)}", style="bold red")
        sys.exit(1)
    console.print("every invariant holds", style="bold green")
