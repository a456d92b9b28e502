"""`headrace top` on a terminal: numbers in a table, decisions and alerts below it, whatever the width."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headrace.cli.top_text import (
    HEADINGS,
    alert_texts,
    decision_text,
    gpu_cell,
    header_lines,
    number_cells,
)
from headrace.top import ModelRow, View

# Below this the phases of workers are letters: the whole words would squeeze the other columns.
WIDE_CELLS = 110
NAME_CELLS = 24
_NUMBERS = HEADINGS[: HEADINGS.index("DECIDED")]
_LEFT = ("MODEL", "WORKERS")
_PHASES = "s starting, i idle, b busy, d draining, u unhealthy"


def drawn(view: View, width: int) -> RenderableType:
    """The whole screen, `width` cells wide."""
    short = width < WIDE_CELLS
    parts: list[RenderableType] = [
        Text(line, style="bold red" if line.startswith("NO ANSWER") else "bold", overflow="fold")
        for line in header_lines(view)
    ]
    parts.append(_table(view, short=short))
    if short:
        parts.append(Text(_PHASES, style="dim"))
    if not view.models:
        parts.append(Text("the registry is empty: `headrace models add FILE.toml` adds a model"))
    parts.append(_notes(view))
    return Group(*parts)


def _table(view: View, *, short: bool) -> Table:
    gap = 1 if short else 2
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for heading in _NUMBERS:
        if heading in _LEFT:
            # Those that may be squeezed: a number that lost digits would be another number.
            table.add_column(heading, overflow="ellipsis")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    with_gpus = any(row.gpus for row in view.models)
    if with_gpus:
        table.add_column("GPU", no_wrap=True)
    for row in view.models:
        cells = (*number_cells(row, short=short), *((gpu_cell(row, view),) if with_gpus else ()))
        table.add_row(*(Text(cell) for cell in cells), style="red" if row.alerts else "")
    return table


def _notes(view: View) -> Table:
    """Below the table: what the scaler decided last, and what is wrong."""
    notes = Table.grid(padding=(0, 2, 0, 0))
    notes.add_column(no_wrap=True, max_width=NAME_CELLS, overflow="ellipsis")
    notes.add_column(overflow="fold")
    for row in view.models:
        for said, style in _notes_of(row):
            notes.add_row(Text(row.name, style="bold"), Text(said, style=style))
    return notes


def _notes_of(row: ModelRow) -> Iterator[tuple[str, str]]:
    """Words and style of each."""
    if said := decision_text(row):
        at = "" if row.decision is None else f"{row.decision.at:%H:%M:%S} "
        blocked = row.decision is not None and bool(row.decision.blocked)
        yield f"{at}{said}", "yellow" if blocked else ""
    for text in alert_texts(row):
        yield f"ALERT {text}", "bold red"
