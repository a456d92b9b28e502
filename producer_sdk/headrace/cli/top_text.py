"""The words of `headrace top`, for a screen and for plain text. Pure."""

from collections.abc import Iterator

from headrace.durations import compact
from headrace.top import GpuUse, ModelRow, View

HEADINGS = (
    *("MODEL", "WAITING", "HELD", "OLDEST", "WORKERS", "TARGET", "JOBS/S", "P50", "P99"),
    *("DECIDED", "DECISION", "ALERTS"),
)

UNKNOWN = "-"
_GIB = 1 << 30


def header_lines(view: View) -> Iterator[str]:
    """Broker, scaler, slots, GPUs; and the outage, if there is one."""
    scaler = "no scaler" if view.leader is None else f"scaler {view.leader}"
    slots = ", ".join(f"{slot} {count}" for slot, count in view.slots.items()) or "none in use"
    yield f"{view.at:%H:%M:%S} UTC   {view.broker} ({view.version})   {scaler}   slots: {slots}"
    if view.gpus:
        yield "   ".join(_gpu(gpu) for gpu in view.gpus)
    if view.outage:
        since = f" since {view.outage_since:%H:%M:%S} UTC" if view.outage_since else ""
        yield f"NO ANSWER from the broker{since}: {view.outage}. What follows is from {view.at:%H:%M:%S} UTC"


def _gpu(gpu: GpuUse) -> str:
    busy = "" if gpu.busy is None else f"{gpu.busy:.0%} "
    return f"gpu:{gpu.index} {busy}{gpu.used_bytes / _GIB:.1f}/{gpu.total_bytes / _GIB:.1f} GiB"


def table_rows(view: View) -> list[tuple[str, ...]]:
    """A row of HEADINGS for each model."""
    return [(*number_cells(row), *_decision_cells(row), _alerts_cell(row)) for row in view.models]


def number_cells(row: ModelRow, *, short: bool = False) -> tuple[str, ...]:
    """MODEL to P99; `short`: with the first letter of each phase."""
    return (
        row.name,
        str(row.waiting),
        str(row.held),
        UNKNOWN if row.oldest_wait_s is None else compact(row.oldest_wait_s),
        workers_cell(row, short=short),
        UNKNOWN if row.target is None else str(row.target),
        UNKNOWN if row.speed.jobs_s is None else rate(row.speed.jobs_s),
        UNKNOWN if row.speed.p50_s is None else compact(row.speed.p50_s),
        UNKNOWN if row.speed.p99_s is None else compact(row.speed.p99_s),
    )


def rate(jobs_s: float) -> str:
    """Jobs per second, to about three digits."""
    return f"{jobs_s:.0f}" if jobs_s >= 100 else f"{jobs_s:.3g}"


def workers_cell(row: ModelRow, *, short: bool = False) -> str:
    """`2 busy, 1 idle`, or `2b 1i`; 0 if there is none."""
    if short:
        return " ".join(f"{count}{phase[0]}" for phase, count in row.workers.items()) or "0"
    return ", ".join(f"{count} {phase}" for phase, count in row.workers.items()) or "0"


def gpu_cell(row: ModelRow, view: View) -> str:
    """How busy the GPUs are that its workers are on."""
    busy = {gpu.index: gpu.busy for gpu in view.gpus}
    return " ".join(f"{index}:{UNKNOWN if busy[index] is None else f'{busy[index]:.0%}'}" for index in row.gpus)


def decision_text(row: ModelRow) -> str:
    """What the scaler decided last, and why."""
    if row.decision is None:
        return "" if row.registered else "not in the registry: its jobs end as unknown_model"
    return f"{row.decision.reason}" + (f" [{row.decision.blocked}]" if row.decision.blocked else "")


def alert_texts(row: ModelRow) -> list[str]:
    """The alerts that fire."""
    return [f"{alert.alert} since {alert.since:%H:%M:%S} UTC: {alert.reason}" for alert in row.alerts]


def _decision_cells(row: ModelRow) -> tuple[str, str]:
    at = UNKNOWN if row.decision is None else f"{row.decision.at:%H:%M:%S}"
    return at, decision_text(row) or UNKNOWN


def _alerts_cell(row: ModelRow) -> str:
    return "; ".join(alert_texts(row)) or UNKNOWN
