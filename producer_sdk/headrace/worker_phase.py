"""Where a worker is in its life, for people: what its engine says. Pure.

The scaler's own reading is another one: to it, whoever has a job is busy, so that nothing happens to the job.
"""

from collections.abc import Iterable, Iterator

from headrace_contracts.heartbeat import EngineState, EngineStatus, WorkerPhase, WorkerStatus


def phase_of(worker: WorkerStatus, engine: EngineStatus) -> WorkerPhase:
    """The phase of one model on one worker."""
    if worker.draining:
        return WorkerPhase.DRAINING
    match engine.state:
        case EngineState.LOADING | EngineState.RECOVERING:
            return WorkerPhase.STARTING
        case EngineState.UNHEALTHY:
            return WorkerPhase.UNHEALTHY
        case EngineState.READY:
            return WorkerPhase.BUSY if engine.running or engine.held else WorkerPhase.IDLE


def engines_of(model: str, workers: Iterable[WorkerStatus]) -> Iterator[tuple[WorkerStatus, EngineStatus]]:
    """The workers of a model, each with its engine for it."""
    for worker in workers:
        for engine in worker.engines:
            if engine.model == model:
                yield worker, engine


def count_phases(model: str, workers: Iterable[WorkerStatus]) -> dict[WorkerPhase, int]:
    """Workers of a model by phase, in the order of a life; phases that none is in are absent."""
    phases = [phase_of(worker, engine) for worker, engine in engines_of(model, workers)]
    return {phase: phases.count(phase) for phase in WorkerPhase if phase in phases}
