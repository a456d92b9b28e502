"""A report of one run: to the terminal, and as Markdown with the raw numbers as JSON beside it."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.cold_start import ColdStartReport
from benchmarks.efficiency import EfficiencyReport
from benchmarks.machine import Machine
from benchmarks.memory import MemoryRow
from benchmarks.queue import QueueReport
from benchmarks.recovery import RecoveryRow


class Report(msgspec.Struct, frozen=True):
    """Everything of one run; a section that was not asked for is None."""

    at: datetime
    command: str
    quick: bool
    """Too few samples for figures to quote: a check that the benchmark works."""
    seed: int
    machine: Machine
    versions: dict[str, str]
    queue: QueueReport | None = None
    efficiency: EfficiencyReport | None = None
    memory: list[MemoryRow] | None = None
    recovery: list[RecoveryRow] | None = None
    cold_start: ColdStartReport | None = None


class Table(msgspec.Struct, frozen=True):
    """Rows of one struct type under a title, with what a reader has to know."""

    title: str
    note: str
    rows: Sequence[msgspec.Struct]

    @property
    def columns(self) -> tuple[str, ...]:
        """Headings."""
        return tuple(name.replace("_", " ") for name in self.rows[0].__struct_fields__)

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as text."""
        return [tuple(_text(value) for value in msgspec.structs.astuple(row)) for row in self.rows]


def tables(report: Report) -> list[Table]:
    """The report's tables, in reading order."""
    found = []
    if report.queue is not None:
        note = (
            "One job at a time, a short random gap between, to an idle warm worker. `bare` is a nats-py program that "
            "only fetches, publishes a result and acks; `p50 to bare` is what the guarantees cost. Indented rows are "
            "the stages of the first measure. `sync always` is the default of Headrace; `off` may lose acknowledged "
            "jobs in a power cut."
        )
        found.append(Table("Queue: latency", note, report.queue.latency))
        note = (
            f"{report.queue.burst_jobs} no-op jobs submitted at once; first publish to last result, median of the "
            "rounds. Client, broker and worker share the cores."
        )
        found.append(Table("Queue: throughput", note, report.queue.throughput))
    if report.efficiency is not None:
        note = (
            "The same inputs through a worker (first engine start to last stored result, files stored) and by the "
            "library's own call in a process with the same environment, taking turns. Batch above 1: the worker's "
            "batch against calls one after the other."
        )
        found.append(Table("Efficiency", note, report.efficiency.rows))
    if report.recovery is not None:
        note = (
            "A synthetic engine on a broker that syncs always, one fault at a time, each in a worker of its own. "
            "Times beyond a deadline or a lease are what the system adds to it."
        )
        found.append(Table("Recovery", note, report.recovery))
    if report.cold_start is not None:
        found += _cold_start(report.cold_start)
    if report.memory is not None:
        found.append(
            Table("Memory", "Peak resident memory of each process of a worker, after its runs.", report.memory)
        )
    return found


def _cold_start(report: ColdStartReport) -> list[Table]:
    note = (
        "Publish to stored result with no worker running: broker, zygote and page cache are warm, and the worker is "
        "started at the publish. The ways take turns in a shuffled order. One small job each: a picture of 10 steps, "
        "8 tokens of text, 3 s of speech."
    )
    phases = (
        "Medians of what the workers say of their starts, in seconds. `spawn` is until the worker's first line, "
        "`connect` until it has its models, `engine` until the engine process's first line; `first result` is from "
        "ready to the first job's end in the engine."
    )
    ordered = (
        "The real scaler, from zero workers to one and back, again and again. The broker wakes it when a job comes for "
        "a model that has no worker. Milliseconds from the publish."
    )
    memory = (
        "Proportional set size in MiB: a page that is shared counts in parts. Workers with their engines, after a job; "
        "what they share with an idle zygote is counted half there."
    )
    return [
        Table("Cold start", note, report.rows),
        Table("Cold start: phases", phases, report.phases),
        Table("Cold start: the scaler", ordered, report.ordered),
        Table("Cold start: memory", memory, report.memory),
    ]


def show(report: Report, console: Console) -> None:
    """Print the tables."""
    for table in tables(report):
        drawn = RichTable(*table.columns, title=table.title, caption=table.note)
        for row in table.cells():
            drawn.add_row(*row)
        console.print(drawn)
    console.print(_about(report))


def write(report: Report, folder: Path, name: str) -> Path:
    """Write `<date>-<name>.md` and the same with `.json` into `folder`, made if missing; the Markdown file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.at:%Y-%m-%d}-{name}.md"
    path.write_text(_markdown(report, path.with_suffix(".json").name), encoding="utf-8")
    path.with_suffix(".json").write_bytes(msgspec.json.encode(report) + b"\n")
    return path


def _markdown(report: Report, raw_name: str) -> str:
    parts = [f"# Benchmarks, {report.at:%Y-%m-%d}", _about(report), f"Raw numbers: [{raw_name}]({raw_name})"]
    for table in tables(report):
        lines = [_line(table.columns), _line(["---"] * len(table.columns)), *(_line(row) for row in table.cells())]
        parts += [f"## {table.title}", table.note, "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    # Leading spaces mark a stage of a measure; Markdown would drop them.
    return "| " + " | ".join(cell.replace("  ", "&nbsp;&nbsp;") for cell in cells) + " |"


def _about(report: Report) -> str:
    m = report.machine
    warning = "A quick run: a check that the benchmark works, no figures to quote.\n\n" if report.quick else ""
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return (
        f"{warning}`{report.command}` (seed {report.seed}), {report.at:%Y-%m-%d %H:%M} UTC\n\n"
        f"Machine: {m.cpu}, {m.cores} cores, {m.memory_gib} GiB memory, GPU {m.gpu or 'none'}; 4 KiB written and "
        f"synced in {m.fsync_p50_ms} ms (p50); load average before the run {m.load_1m}\n\n"
        f"Versions: {versions}"
    )


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
