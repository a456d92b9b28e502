"""What the policy is told, in few words, and a policy that remembers between two decisions."""

from datetime import UTC, datetime, timedelta

from headrace_contracts.cost import SlotKind
from headrace_contracts.heartbeat import WorkerPhase
from headrace_contracts.scaling import Scaling
from headrace_scaler.policy.decide import decide
from headrace_scaler.policy.decision import ModelDecision
from headrace_scaler.policy.observation import FailedStart, ModelView, Need, Observation, Slot, WorkerView
from headrace_scaler.policy.state import State

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
GB = 10**9
CORE = Need(SlotKind.CPU, 1)
MANY_CORES = (Slot("cpu", SlotKind.CPU, 64, 64),)


def gpu(id_: str = "gpu:0", free: int = 24, size: int = 24, quarantined: str = "") -> Slot:
    return Slot(id_, SlotKind.GPU, size * GB, free * GB, quarantined)


def model(
    name: str = "painter",
    scaling: Scaling | None = None,
    workers: tuple[WorkerView, ...] = (),
    *,
    waiting: int = 0,
    held: int = 0,
    oldest_wait_s: float | None = None,
    need: Need = CORE,
    jobs_per_worker: int = 1,
    arrival_rate: float = 0.0,
    service_s: float | None = None,
    failed: tuple[str, ...] = (),
    version: str = "1",
    outdated: tuple[str, ...] = (),
    paused: bool = False,
) -> ModelView:
    return ModelView(
        name=name,
        scaling=scaling or Scaling(max_workers=8),
        need=need,
        jobs_per_worker=jobs_per_worker,
        load_timeout_s=60.0,
        waiting=waiting,
        held=held,
        oldest_wait_s=float(waiting > 0) if oldest_wait_s is None else oldest_wait_s,
        arrival_rate=arrival_rate,
        service_s=service_s,
        workers=workers,
        failed_starts=tuple(FailedStart(id_, "exit status 1") for id_ in failed),
        version=version,
        outdated=outdated,
        paused=paused,
    )


def worker(
    id_: str, phase: WorkerPhase, since: float = 0.0, slot: str = "cpu", need: Need = CORE, **more
) -> WorkerView:
    jobs = more.pop("jobs", 1 if phase is WorkerPhase.BUSY else 0)
    return WorkerView(id_, phase, since, jobs, slot, need, **more)


def idle(*ids: str, since: float = 0.0, **more) -> tuple[WorkerView, ...]:
    return tuple(worker(id_, WorkerPhase.IDLE, since, **more) for id_ in ids)


def busy(*ids: str, **more) -> tuple[WorkerView, ...]:
    return tuple(worker(id_, WorkerPhase.BUSY, **more) for id_ in ids)


def starting(*ids: str, since: float = 0.0, **more) -> tuple[WorkerView, ...]:
    return tuple(worker(id_, WorkerPhase.STARTING, since, **more) for id_ in ids)


class Policy:
    """Asks, and keeps the state."""

    def __init__(self, slots: tuple[Slot, ...] = MANY_CORES) -> None:
        self.slots = slots
        self.state = State()

    def all(self, at: float, *models: ModelView, wall: datetime | None = None) -> dict[str, ModelDecision]:
        """Decisions by model."""
        decided = decide(Observation(models, self.slots), self.state, at, wall or MONDAY + timedelta(seconds=at))
        self.state = decided.state
        return {decision.model: decision for decision in decided.models}

    def at(self, at: float, view: ModelView, wall: datetime | None = None) -> ModelDecision:
        """The decision on the only model."""
        return self.all(at, view, wall=wall)[view.name]
