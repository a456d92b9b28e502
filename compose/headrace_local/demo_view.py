"""What `headrace demo` shows: a bar and live text in a terminal, plain lines everywhere else."""

import time
from collections.abc import Callable, Sequence

import msgspec
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from headrace_contracts.result import Timings

# A file or pipe has no width of its own; the table needs this much.
PLAIN_WIDTH = 130


class Row(msgspec.Struct, frozen=True):
    """How one job of the demo ended."""

    model: str
    start: str
    """`cold`: no worker of the model was there; `warm`: one was."""
    status: str
    total_s: float = 0.0
    """From when the broker had the job until its result was made."""
    timings: Timings = Timings()
    artifact: str = ""


class DemoView:
    """Writes to the terminal, or to whatever stands in its place."""

    def __init__(self, console: Console | None = None) -> None:
        self._began = time.perf_counter()
        self._within_line = False
        console = console or Console(highlight=False)
        self._console = console if console.is_terminal else Console(file=console.file, width=PLAIN_WIDTH, no_color=True)

    def since_start(self, line: str) -> None:
        """One line with the seconds since this view was made."""
        if self._within_line:
            self.say("")
        self.say(f"  {time.perf_counter() - self._began:5.1f} s  {line}")

    def say(self, line: str) -> None:
        """One line; it is text, never markup."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._within_line = False

    def heading(self, model: str, what: str) -> None:
        """A new job begins."""
        self._console.print()
        self._console.print(f"{model}: {what}", style="bold", markup=False, highlight=False, soft_wrap=True)

    def steps(self) -> "Steps":
        """A progress bar; outside a terminal nothing but its end."""
        return Steps(self._console)

    def piece(self, text: str) -> None:
        """A piece of text as it comes, without a line end."""
        self._console.print(text, end="", markup=False, highlight=False, soft_wrap=True)
        self._within_line = True

    def table(self, rows: Sequence[Row]) -> None:
        """Every job and where its time went."""
        # Fits into 80 columns.
        table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, caption="times in seconds")
        for name in ("model", "start", "status"):
            table.add_column(name, no_wrap=True)
        for name in ("total", "queue", "load", "run", "store"):
            table.add_column(name, justify="right", min_width=5, no_wrap=True)
        table.add_column("artifact", overflow="fold", min_width=12)
        for row in rows:
            t = row.timings
            seconds = [f"{value:.2f}" for value in (row.total_s, t.queued_s, t.load_s, t.run_s, t.store_s)]
            table.add_row(row.model, row.start, row.status, *seconds, row.artifact)
        self._console.print(table)


class Steps:
    """The progress of one job; a context manager."""

    def __init__(self, console: Console) -> None:
        self._plain: Callable[[str], None] | None = None if console.is_terminal else console.print
        self._progress = Progress(
            TextColumn("  denoising"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._bar = self._progress.add_task("", total=None)
        self._last = ""

    def __enter__(self) -> "Steps":
        if self._plain is None:
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._plain is None:
            self._progress.stop()
        elif self._last:
            self._plain(self._last)

    def done(self, step: float, total: float) -> None:
        """`step` of `total` are done."""
        self._last = f"  {step:g} of {total:g} steps"
        self._progress.update(self._bar, completed=int(step), total=int(total))
