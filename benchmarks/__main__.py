"""`python -m benchmarks`: measure, print, and write a report."""

import asyncio
import os
import random
import shlex
import tempfile
from pathlib import Path

import click
from rich.console import Console

from benchmarks.cold_start import measure_cold_start
from benchmarks.efficiency import measure_efficiency
from benchmarks.machine import describe_machine, describe_versions
from benchmarks.queue import measure_queue
from benchmarks.recovery import measure_recovery
from benchmarks.report import Report, show, write
from benchmarks.rig import Options
from headrace_contracts.clock import Clock, SystemClock

ROOT = Path(__file__).parents[1]
# Not the system's folder for temporary files, which may be in memory: a sync to disk would cost nothing there.
WORK = ROOT / ".headrace" / "bench"
# Kept between runs: importing the language model takes 20 s.
CACHE = ROOT / ".headrace" / "test-cache"

SECTIONS = ("queue", "efficiency", "memory", "recovery", "coldstart")


@click.command()
@click.option("--only", type=click.Choice(SECTIONS), help="One section; without it, all.")
@click.option("--quick", is_flag=True, help="Few samples: checks that the benchmark works, gives no figures to quote.")
@click.option("--seed", default=0, show_default=True, help="Of the order of rounds and the gaps between jobs.")
@click.option("--name", default="bench", show_default=True, help="Names the report: <date>-<name>.md")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "docs" / "benchmarks",
    help="Folder for the report.  [default: docs/benchmarks]",
)
def main(only: str | None, quick: bool, seed: int, name: str, out: Path) -> None:
    """Measure Headrace on this machine, beside a bare nats-py worker and the models' own libraries."""
    console = Console(width=None if os.isatty(1) else 140)
    words = ["python", "-m", "benchmarks", *(["--only", only] if only else []), *(["--quick"] if quick else [])]
    report = asyncio.run(_measure(SystemClock(), only, quick, seed, shlex.join(words), console))
    show(report, console)
    console.print(f"written: {write(report, out, name).name}")


async def _measure(clock: Clock, only: str | None, quick: bool, seed: int, command: str, console: Console) -> Report:
    WORK.mkdir(parents=True, exist_ok=True)
    queue, efficiency, recovery, cold_start, memory = None, None, None, None, []
    with tempfile.TemporaryDirectory(dir=WORK) as work:
        cache = Path(os.environ.get("HEADRACE_CACHE_DIR") or CACHE)
        # For memory alone the models only have to run once: a peak needs no samples.
        few = quick or only == "memory"
        options = Options(few, random.Random(seed), Path(work), cache, lambda line: console.print(line, style="dim"))
        at, machine = clock.now(), describe_machine(Path(work))
        if only in (None, "queue", "memory"):
            queue, peaks = await measure_queue(options, clock)
            memory += peaks
        if only in (None, "efficiency", "memory"):
            efficiency, peaks = await measure_efficiency(options, clock)
            memory += peaks
        if only in (None, "recovery"):
            recovery = await measure_recovery(options, clock)
        if only in (None, "coldstart"):
            cold_start = await measure_cold_start(options, clock)
    return Report(
        at=at,
        command=command,
        quick=quick,
        seed=seed,
        machine=machine,
        versions=describe_versions(),
        queue=None if only == "memory" else queue,
        efficiency=None if only == "memory" else efficiency,
        memory=None if only in ("recovery", "coldstart") else memory,
        recovery=recovery,
        cold_start=cold_start,
    )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
