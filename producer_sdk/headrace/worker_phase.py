"""Where a worker is in its life, by its heartbeat. Pure; the words are those of the scaler."""

from collections.abc import Iterable, Iterator
from enum import StrEnum

from headrace_contracts.heartbeat import EngineState, EngineStatus, WorkerStatus


class Phase(StrEnum):
    """A worker of one model."""

    STARTING = "starting"
    """Its engine is not ready yet, or not again."""
    IDLE = "idle"
    BUSY = "busy"
    """It has at least one job in hand."""
    DRAINING = "draining"
    """It takes no more jobs and ends."""
    UNHEALTHY = "unhealthy"
    """Its engine cannot be started."""


def phase_of(worker: WorkerStatus, engine: EngineStatus) -> Phase:
    """The phase of one model on one worker."""
    if worker.draining:
        return Phase.DRAINING
    match engine.state:
        case EngineState.LOADING | EngineState.RECOVERING:
            return Phase.STARTING
        case EngineState.UNHEALTHY:
            return Phase.UNHEALTHY
        case EngineState.READY:
            return Phase.BUSY if engine.running or engine.held else Phase.IDLE


def engines_of(model: str, workers: Iterable[WorkerStatus]) -> Iterator[tuple[WorkerStatus, EngineStatus]]:
    """The workers of a model, each with its engine for it."""
    for worker in workers:
        for engine in worker.engines:
            if engine.model == model:
                yield worker, engine


def count_phases(model: str, workers: Iterable[WorkerStatus]) -> dict[Phase, int]:
    """Workers of a model by phase, in the order of a life; phases that none is in are absent."""
    phases = [phase_of(worker, engine) for worker, engine in engines_of(model, workers)]
    return {phase: phases.count(phase) for phase in Phase if phase in phases}
