"""Models in trouble, as values."""

from datetime import UTC, datetime, timedelta

from headrace_contracts.alert import AlertName
from headrace_contracts.cost import SlotKind
from headrace_contracts.heartbeat import WorkerPhase
from headrace_contracts.scaling import Scaling
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.policy.observation import FailedStart, ModelView, Need, Observation, Slot, WorkerView

SETTINGS = ScalerSettings(alert_backlog_jobs=100, alert_oldest_age_s=60.0, alert_after_s=5.0)
START = datetime(2026, 1, 1, tzinfo=UTC)
CPU = Slot("cpu", SlotKind.CPU, size=4, free=1)


def wall(now: float) -> datetime:
    return START + timedelta(seconds=now)


def worker(phase: WorkerPhase, name: str = "w-1") -> WorkerView:
    return WorkerView(name, phase, since=0.0)


def view(
    waiting: int = 0,
    *,
    name: str = "m",
    oldest_wait_s: float = 0.0,
    phases: tuple[WorkerPhase, ...] = (WorkerPhase.BUSY,),
    failed: str = "",
    max_workers: int = 4,
    paused: bool = False,
) -> ModelView:
    return ModelView(
        name=name,
        scaling=Scaling(max_workers=max_workers),
        need=Need(SlotKind.CPU, 1),
        jobs_per_worker=1,
        load_timeout_s=60.0,
        waiting=waiting,
        held=1,
        oldest_wait_s=oldest_wait_s,
        arrival_rate=0.5,
        service_s=2.0,
        workers=tuple(worker(phase, f"w-{index}") for index, phase in enumerate(phases)),
        failed_starts=(FailedStart("w-9", failed),) if failed else (),
        paused=paused,
    )


def seen(*views: ModelView) -> Observation:
    return Observation(views, (CPU,))


BACKLOG = AlertName.BACKLOG
