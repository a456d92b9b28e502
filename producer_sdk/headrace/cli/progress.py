"""What a job does, on standard error: a bar on a terminal, a line per event elsewhere."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, assert_never

import click

from headrace_contracts.event import AnyEvent, Chunk, Log, Progress, Retrying, Started

if TYPE_CHECKING:
    pass


class Display(Protocol):
    """Shows events while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: AnyEvent) -> None:
        """Take one more event."""
        ...


def display(model: str, *, streams_text: bool) -> Display:
    """The display for this terminal; a bar would tear text that is written at the same time."""
    return BarDisplay(model) if sys.stderr.isatty() and not streams_text else LineDisplay()


class LineDisplay:
    """A line for each event that is not just progress."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, event: AnyEvent) -> None:
        """Write the line."""
        if not isinstance(event, Chunk | Progress):
            click.echo(line(event), err=True)


class BarDisplay:
    """A bar with what the job does now."""

    def __init__(self, model: str) -> None:
        self._model = model

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        text = TextColumn("{task.description}", markup=False)
        console = Console(stderr=True)
        columns = (SpinnerColumn(), text, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar: Bar = Bar(*columns, console=console, transient=True)
        self._bar.start()
        self._task = self._bar.add_task(f"{self._model}: queued", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, event: AnyEvent) -> None:
        """Move the bar."""
        match event:
            case Started():
                self._bar.reset(self._task, total=None, description=f"{self._model}: running")
            case Progress():
                self._bar.update(self._task, completed=event.step, total=event.total)
            case Chunk():
                pass
            case Log() | Retrying():
                self._bar.console.print(line(event), markup=False, highlight=False)
            case _:
                assert_never(event)


def line(event: AnyEvent) -> str:
    """An event in words."""
    match event:
        case Started():
            return f"started on {event.worker}" + (f" (attempt {event.attempt})" if event.attempt > 1 else "")
        case Progress():
            return f"{event.step:g} of {event.total:g}"
        case Chunk():
            return event.text
        case Log():
            return event.message
        case Retrying():
            return f"attempt {event.attempt} failed: {event.message} [{event.code}]; again in {event.delay_s:.1f} s"
        case _:
            assert_never(event)
