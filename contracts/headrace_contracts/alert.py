"""What the scaler tells: messages of the ALERTS stream, one subject per kind and model.

alerts.backlog.<model>     an alert began or ended, with its reason
alerts.decision.<model>    the scaler wants another number of workers, or found out why it cannot have them
alerts.cold_start.<model>  a worker became ready: where the time went
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from headrace_contracts.heartbeat import ColdStart


class AlertName(StrEnum):
    """What can be wrong with a model's queue."""

    BACKLOG = "backlog"
    """More jobs wait than workers will take soon."""
    OLDEST_AGE = "oldest_age"
    """A job waits for longer than it should."""
    NO_WORKER = "no_worker"
    """Jobs wait and no worker is there or on its way."""
    CRASH_LOOP = "crash_loop"
    """Workers of the model keep failing to start."""
    SATURATION = "saturation"
    """`max_workers` is reached, or no slot is left, and jobs still wait."""


class AlertState(StrEnum):
    """As Prometheus' Alertmanager has it."""

    FIRING = "firing"
    RESOLVED = "resolved"


class Alert(msgspec.Struct, frozen=True):
    """One alert began or ended, or goes on: a firing one is told again every few minutes, with the same `since`.

    The last message of a model says all: what is in its `firing` fires, and nothing else does.
    """

    alert: AlertName
    state: AlertState
    model: str
    at: datetime
    since: datetime
    """When it began to fire."""
    reason: str
    """For people, with the numbers."""
    waiting: int
    """Jobs in the queue that no worker holds."""
    held: int
    """Jobs that workers hold."""
    oldest_wait_s: float
    workers: int
    """Workers that are there or on their way."""
    max_workers: int
    firing: dict[AlertName, datetime] = {}
    """Every alert of the model that fires after this message, and since when."""


class ScalingDecision(msgspec.Struct, frozen=True):
    """What the scaler decided for a model; published when it differs from the one before."""

    model: str
    at: datetime
    target: int
    """Workers wanted."""
    workers: int
    """Workers there were, those on their way included."""
    busy: int
    reason: str
    """For people: what asked for this number, and what stands in its way."""
    blocked: str = ""
    """Why workers that are wanted cannot be started now: `crash_loop`, `no_slot`, `never_fits`, `max_workers` ..."""
    waiting: int = 0
    held: int = 0
    started: int = 0
    """Workers started by this decision."""
    draining: tuple[str, ...] = ()
    """Idle workers told to stop by this decision."""
    stopped: tuple[str, ...] = ()
    """Workers ended by this decision because they never became ready."""


class WorkerColdStart(msgspec.Struct, frozen=True):
    """A worker became ready."""

    model: str
    worker: str
    at: datetime
    decide_s: float
    """From the arrival of the job that asked for it until its start was ordered; 0 where no job asked."""
    phases: ColdStart
    ready_s: float
    """From that arrival, or else from the order, until its engine was ready."""
