"""What is known of one job at one moment, and what is said of it."""

from datetime import datetime

import msgspec

from headrace.job_status import JobState
from headrace_contracts.alert import ScalingDecision, WorkerColdStart
from headrace_contracts.attempts import Attempts
from headrace_contracts.event import Retrying, Started
from headrace_contracts.heartbeat import WorkerStatus
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import Lane
from headrace_contracts.result import Result
from headrace_storage.lanes import LaneState
from headrace_storage.queue_position import IngressPosition


class InQueue(msgspec.Struct, frozen=True):
    """The job's message is in JOBS."""

    lane: Lane
    created_at: datetime
    ttl_s: float | None
    """What the job itself says."""
    ahead: int | None
    """Jobs of its lane that wait before it; None: a worker has had it, and has it or gave it back."""


class Facts(msgspec.Struct, frozen=True):
    """Everything that is known. Without `result`, `queued` and `ingress` there is no such job."""

    job_id: str
    tenant: str
    now: datetime
    model: str = ""
    result: Result | None = None
    queued: InQueue | None = None
    ingress: IngressPosition | None = None
    spec: ModelSpec | None = None
    """None: the registry does not have the model."""
    lanes: tuple[LaneState, ...] = ()
    """Of the model, highest first."""
    workers: tuple[WorkerStatus, ...] = ()
    """All there are, of any model."""
    started: Started | None = None
    """The newest attempt."""
    retrying: Retrying | None = None
    """That attempt failed; the job has not begun again since."""
    done: float | None = None
    """How much of the newest attempt is done, 0 to 1; None: it did not say."""
    attempts: Attempts = Attempts()
    decision: ScalingDecision | None = None
    """The scaler's newest on the model."""
    leader: str | None = None
    """The scaler; None: none runs."""
    cold_starts: tuple[WorkerColdStart, ...] = ()
    """Of the model, oldest first."""


class Bar(msgspec.Struct, frozen=True):
    """A part of a job's time."""

    phase: str
    took_s: float
    share: float
    """Of the whole, 0 to 1."""


class Explanation(msgspec.Struct, frozen=True):
    """What is said."""

    state: JobState
    sentences: tuple[str, ...]
    """The first says the most."""
    advice: str = ""
    """What to do; empty where nothing can or need be done."""
    start_in_s: float | None = None
    """Until it will probably begin; None: it has begun, or nobody can say."""
    bars: tuple[Bar, ...] = ()
    """Where the time of a job that has ended went."""


def lane_of(facts: Facts) -> LaneState | None:
    """The lane that the job waits in; None: the broker has no consumer of it."""
    assert facts.queued is not None
    return next((lane for lane in facts.lanes if lane.lane is facts.queued.lane), None)
