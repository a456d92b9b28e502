"""What a worker says of itself: its entry in the WORKERS bucket; and what it may be asked."""

from datetime import datetime
from enum import StrEnum

import msgspec


class EngineState(StrEnum):
    """Health of one engine process."""

    LOADING = "loading"
    READY = "ready"
    RECOVERING = "recovering"
    """It died or was killed, and is being started again."""
    UNHEALTHY = "unhealthy"
    """It cannot be started; jobs for the model are not pulled."""


class WorkerPhase(StrEnum):
    """Where a worker of one model is in its life."""

    STARTING = "starting"
    """Ordered or loading: its engine is not ready yet, or not again."""
    IDLE = "idle"
    """Ready, without a job."""
    BUSY = "busy"
    """It has at least one job."""
    DRAINING = "draining"
    """It takes no more jobs and ends."""
    UNHEALTHY = "unhealthy"
    """It runs, and its engine cannot be started."""


class ColdStart(msgspec.Struct, frozen=True):
    """Where the time of an engine's last start went, in seconds; 0: not yet, or not part of this start."""

    spawn_s: float = 0.0
    """From the order to start the worker until its first line of code."""
    connect_s: float = 0.0
    """Until the broker was found and asked for the model. It is checked while the engine starts."""
    weights_s: float = 0.0
    """Weights fetched or found in the cache."""
    engine_s: float = 0.0
    """Engine process started, up to its first line of code."""
    import_s: float = 0.0
    """Libraries imported; next to nothing in a process forked from a warm parent."""
    load_s: float = 0.0
    """Weights loaded onto the device."""
    warm_up_s: float = 0.0
    """First run of the model on made-up input, where the engine has one."""
    first_result_s: float = 0.0
    """From ready to the first job's result."""
    forked: bool = False
    """The process came from a warm parent."""

    @property
    def ready_s(self) -> float:
        """From the order until jobs are taken: the phases up to there follow each other."""
        before = self.spawn_s + self.connect_s + self.weights_s
        return before + self.engine_s + self.import_s + self.load_s + self.warm_up_s


class Account(msgspec.Struct, frozen=True):
    """What the time of a worker went to, for one model, in seconds since its start: the three add up to its uptime."""

    starting_s: float = 0.0
    """No engine was ready: the cold start, and later restarts."""
    busy_s: float = 0.0
    """At least one job was in the engine."""
    idle_s: float = 0.0
    """Ready, and nothing to do."""
    jobs: int = 0
    """Jobs that left the engine, however they ended."""

    @property
    def uptime_s(self) -> float:
        """All of it."""
        return self.starting_s + self.busy_s + self.idle_s


class EngineStatus(msgspec.Struct, frozen=True):
    """One model on one worker."""

    model: str
    state: EngineState
    slots: int
    """Jobs it can run at once."""
    running: tuple[str, ...]
    """Ids of the jobs in the engine."""
    held: int
    """Other jobs on the worker: waiting for a slot, or done and being stored."""
    detail: str = ""
    idle_since: datetime | None = None
    """Since when it is ready and has no job at all; None while it has one, or is not ready."""
    runs_as: str = ""
    """Digest of the model's entry that it was started with; another one in the registry means that it is outdated."""
    cold_start: ColdStart = ColdStart()
    account: Account = Account()


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker process."""

    id: str
    host: str
    pid: int
    started_at: datetime
    at: datetime
    draining: bool
    engines: tuple[EngineStatus, ...]
    slot: str = ""
    """Where the scaler put it: `cpu`, `gpu:0`; empty for a worker that was started by hand."""
    metrics: str = ""
    """`host:port` where it serves its metrics, for whoever looks for all of them; empty: nowhere."""


class DrainRequest(msgspec.Struct, frozen=True):
    """Asks a worker, on its own control subject, to take no more jobs and to end when it has none."""

    only_if_idle: bool = True
    """Refuse while there is any job; without it, jobs in hand are finished first."""


class DrainReply(msgspec.Struct, frozen=True):
    """What the worker answers."""

    draining: bool
    """It takes no more jobs from now on."""
    jobs: int
    """Jobs it has in hand."""
