"""The outcome of a run, for people: jobs by their ends, faults by kind, and a verdict per invariant."""

from collections import Counter, defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from headrace_loadgen.check import Verdict
from headrace_loadgen.check.artifacts import orphans
from headrace_loadgen.check.history import History
from headrace_loadgen.evidence import Evidence

# More of the same says nothing new; all of it is in the folder.
SHOWN = 5

Rows = list[tuple[str, ...]]


def tables(evidence: Evidence, verdicts: list[Verdict]) -> list[tuple[str, tuple[str, ...], Rows]]:
    """Title, column names and rows of every table."""
    history = History.of(evidence)
    return [
        ("Jobs", ("status", "jobs"), _jobs(history)),
        ("Work", ("what", "count"), _work(history, evidence)),
        ("Faults", ("fault", "times", "happened"), _faults(evidence)),
        (
            "Invariants",
            ("invariant", "compared", "violations"),
            [(v.invariant, str(v.looked_at), str(len(v.violations) or "none")) for v in verdicts],
        ),
    ]


def show(evidence: Evidence, verdicts: list[Verdict], console: Console) -> None:
    """Print everything."""
    for title, columns, rows in tables(evidence, verdicts):
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            broken = title == "Invariants" and row[2] != "none"
            table.add_row(*row, style="red" if broken else None)
        console.print(table)
    for verdict in verdicts:
        for violation in verdict.violations[:SHOWN]:
            console.print(f"VIOLATED {verdict.invariant}: {violation.job_id or '-'}: {violation.problem}", style="red")
        if len(verdict.violations) > SHOWN:
            console.print(f"         ... and {len(verdict.violations) - SHOWN} more", style="red")


def write_markdown(evidence: Evidence, verdicts: list[Verdict], path: Path, heading: str, command: str) -> None:
    """Write the same as a page."""
    lines = [f"# {heading}", "", f"`{command}`", ""]
    for title, columns, rows in tables(evidence, verdicts):
        lines += [f"## {title}", "", _row(columns), _row(("---",) * len(columns)), *(_row(row) for row in rows), ""]
    broken = [(v.invariant, violation) for v in verdicts for violation in v.violations[:SHOWN]]
    if broken:
        lines += ["## Violations", ""]
        lines += [f"- **{name}** `{violation.job_id or '-'}`: {violation.problem}" for name, violation in broken]
        lines += [""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _jobs(history: History) -> Rows:
    ends: Counter[str] = Counter()
    for job in history.jobs.values():
        result = job.result
        if not job.accepted:
            ends["never accepted"] += 1
        elif result is None:
            ends["no result"] += 1
        else:
            ends[f"{result.status}: {result.error.code}" if result.error else str(result.status)] += 1
    return [*((status, str(count)) for status, count in sorted(ends.items())), ("all", str(ends.total()))]


def _work(history: History, evidence: Evidence) -> Rows:
    jobs = history.jobs.values()
    runs = sum(len(job.runs) for job in jobs)
    again = sum(len(job.runs) > 1 for job in jobs)
    refused = sum(len(job.not_accepted) for job in jobs)
    return [
        ("engine runs", str(runs)),
        ("jobs run more than once", str(again)),
        ("requests of clients that failed and were repeated", str(refused)),
        ("cancels answered", str(sum(len(job.cancels) for job in jobs))),
        ("starts of workers that failed, in outages", str(len(evidence.final.failed_starts))),
        ("dead letters", str(len(evidence.final.dead))),
        ("blobs in the store", str(len(evidence.final.blobs))),
        ("of these, left by attempts that died or lost", str(orphans(history))),
        ("seconds from the last fault to an empty queue", f"{evidence.final.drain_s:.1f}"),
    ]


def _faults(evidence: Evidence) -> Rows:
    by_kind = defaultdict(list)
    for fault in evidence.faults:
        by_kind[str(fault.kind)].append(fault.happened)
    return [(kind, str(len(happened)), str(sum(happened))) for kind, happened in sorted(by_kind.items())]
