"""What a worker says of itself: its entry in the WORKERS bucket."""

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


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker process."""

    id: str
    host: str
    pid: int
    started_at: datetime
    at: datetime
    draining: bool
    engines: tuple[EngineStatus, ...]
