"""Models, their backlog and their workers, put together as rows of tables. Pure."""

from collections.abc import Mapping, Sequence

from headrace_contracts.heartbeat import EngineState, WorkerStatus
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import Lane
from headrace_storage.lanes import LaneState

# The best state of any worker is what a new job meets.
_BEST_FIRST = (EngineState.READY, EngineState.LOADING, EngineState.RECOVERING, EngineState.UNHEALTHY)


def workers_state(model: str, workers: Sequence[WorkerStatus]) -> str:
    """How ready a model is: the best state of its engines and how many have it, or `none`."""
    states = [engine.state for worker in workers for engine in worker.engines if engine.model == model]
    for state in _BEST_FIRST:
        if state in states:
            count = states.count(state)
            return f"{state} ({count})" if count > 1 else str(state)
    return "none"


def running(model: str, workers: Sequence[WorkerStatus]) -> int:
    """Jobs of a model in engines now."""
    return sum(len(e.running) for worker in workers for e in worker.engines if e.model == model)


def model_rows(
    specs: Sequence[ModelSpec], workers: Sequence[WorkerStatus], backlog: Mapping[str, Sequence[LaneState]]
) -> list[tuple[str, ...]]:
    """Model, state of its workers, waiting per lane, held by workers."""
    rows = []
    for spec in specs:
        lanes = {lane.lane: lane for lane in backlog.get(spec.name, ())}
        waiting = [str(lanes[lane].waiting) if lane in lanes else "-" for lane in Lane]
        held = str(sum(lane.held for lane in lanes.values()))
        rows.append((spec.name, workers_state(spec.name, workers), *waiting, held))
    return rows


def worker_rows(workers: Sequence[WorkerStatus]) -> list[tuple[str, ...]]:
    """Worker, host, and each of its engines."""
    rows: list[tuple[str, ...]] = []
    for worker in workers:
        for engine in worker.engines:
            state = f"{engine.state}, draining" if worker.draining else str(engine.state)
            jobs = str(len(engine.running))
            rows.append((worker.id, worker.host, engine.model, state, jobs, str(engine.slots), engine.detail))
        if not worker.engines:
            rows.append((worker.id, worker.host, "-", "-", "-", "-", ""))
    return rows
