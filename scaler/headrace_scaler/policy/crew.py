"""The workers of a model, sorted by what they are good for."""

import msgspec

from headrace_contracts.heartbeat import WorkerPhase
from headrace_scaler.policy.observation import ModelView, WorkerView
from headrace_scaler.policy.state import Mark

DRAIN_SHOWS_S = 10.0
"""So long an idle worker that was told to drain is taken to be leaving: two heartbeats. Then the order was lost."""


class Crew(msgspec.Struct, frozen=True):
    """Who is there."""

    capacity: int
    """Workers that have jobs, could have, or will soon: busy, idle and starting ones, others' too."""
    busy: int
    starting: int
    spare: tuple[WorkerView, ...]
    """Idle ones of ours, in the order in which they are to go: those of an older entry first, then the longest idle."""
    leaving: tuple[Mark, ...]
    """Idle ones that were told to drain just now."""
    draining: bool
    """One of ours is on its way out, or was told to be."""
    idle_since: float
    """When a worker last became idle; -inf if none is."""

    @property
    def staying(self) -> int:
        """Capacity without those that were told to leave."""
        return self.capacity - len(self.leaving)


def crew_of(view: ModelView, unfit: frozenset[str], told: tuple[Mark, ...], now: float) -> Crew:
    """Sort the workers of a model.

    Args:
        unfit: ids of workers that are no capacity.
        told: idle workers that were told to drain.
    """
    fit = [worker for worker in view.workers if worker.id not in unfit]
    counts = dict.fromkeys(WorkerPhase, 0)
    for worker in fit:
        counts[worker.phase] += 1
    idle = [worker for worker in fit if worker.phase is WorkerPhase.IDLE]
    ids = {worker.id for worker in idle if worker.ours}
    leaving = tuple(mark for mark in told if mark.worker in ids and now - mark.at < DRAIN_SHOWS_S)
    gone = {mark.worker for mark in leaving}
    # Whoever says it is idle and has jobs is not believed.
    spare = [worker for worker in idle if worker.ours and worker.id not in gone and worker.jobs <= 0]
    outdated = set(view.outdated)
    return Crew(
        capacity=counts[WorkerPhase.STARTING] + counts[WorkerPhase.IDLE] + counts[WorkerPhase.BUSY],
        busy=counts[WorkerPhase.BUSY],
        starting=counts[WorkerPhase.STARTING],
        spare=tuple(sorted(spare, key=lambda worker: (worker.id not in outdated, worker.since, worker.id))),
        leaving=leaving,
        draining=bool(leaving) or any(worker.ours and worker.phase is WorkerPhase.DRAINING for worker in view.workers),
        idle_since=max((worker.since for worker in idle), default=float("-inf")),
    )
