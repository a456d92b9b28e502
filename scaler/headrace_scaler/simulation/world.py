"""The simulated world: queues, workers and slots, moved by events in the order of virtual time."""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable

from headrace_contracts.cost import SlotKind
from headrace_scaler.policy.decision import ModelDecision
from headrace_scaler.policy.observation import FailedStart, ModelView, Need, Observation, Slot
from headrace_scaler.simulation.scene import SimulatedModel
from headrace_scaler.simulation.trace import JobRecord
from headrace_scaler.simulation.worker import SimulatedWorker

RATE_SPAN_S = 60.0
"""Time over which arrivals are counted."""
SERVICE_JOBS = 50
"""Jobs over which the service time is measured."""


class _Job:
    __slots__ = ("arrived", "ended", "fails", "service_s", "started")

    def __init__(self, arrived: float, service_s: float, fails: bool) -> None:
        self.arrived = arrived
        self.service_s = service_s
        self.fails = fails
        self.started: float | None = None
        self.ended: float | None = None


class _Queue:
    """The jobs and workers of one model."""

    def __init__(self, model: SimulatedModel) -> None:
        self.model = model
        self.waiting: deque[_Job] = deque()
        self.held = 0
        self.jobs: list[_Job] = []
        self.workers: dict[str, SimulatedWorker] = {}
        self.failed: list[FailedStart] = []
        self.arrivals: deque[float] = deque()
        self.gone_busy_s = 0.0
        self.finished = 0
        self.accounts: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=SERVICE_JOBS + 1)

    def version(self, now: float) -> str:
        return str(sum(at <= now for at in self.model.updates))

    def busy_s(self, now: float) -> float:
        return self.gone_busy_s + sum(worker.busy_s(now) for worker in self.workers.values())


class World:
    """Everything but the policy."""

    def __init__(self, models: tuple[SimulatedModel, ...], slots: tuple[Slot, ...], generator: random.Random) -> None:
        self.now = 0.0
        self.refused = 0
        self._generator = generator
        self._slots = {slot.id: slot for slot in slots}
        self._free = {slot.id: slot.free for slot in slots}
        self._queues = {model.name: _Queue(model) for model in models}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._gone: list[SimulatedWorker] = []

    # Time

    def advance(self, until: float) -> None:
        """Let everything happen up to a moment, that moment included."""
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = until

    def quiet(self) -> bool:
        """There is no job and no worker, and none is kept."""
        return not self._events and not any(
            queue.workers or queue.waiting or queue.held or queue.failed or queue.model.scaling.min_workers
            or queue.model.scaling.schedule
            for queue in self._queues.values()
        )  # fmt: skip

    # Jobs

    def arrive(self, model: str) -> bool:
        """Submit a job; True: its model has no worker, so that the policy is to be asked at once."""
        queue = self._queues[model]
        simulated = queue.model
        service_s = self._lognormal(simulated.service_s, simulated.service_spread)
        fails = simulated.retry_share > 0 and self._generator.random() < simulated.retry_share
        job = _Job(self.now, service_s, fails)
        queue.jobs.append(job)
        queue.waiting.append(job)
        queue.arrivals.append(self.now)
        self._deliver(queue)
        return not queue.workers

    def _deliver(self, queue: _Queue) -> None:
        while queue.waiting:
            open_ = [worker for worker in queue.workers.values() if worker.takes_jobs]
            if not open_:
                return
            # The broker serves the request that has waited for the longest.
            worker = min(open_, key=lambda worker: (worker.jobs, worker.free_since, worker.id))
            self._run(queue, worker, queue.waiting.popleft())

    def _run(self, queue: _Queue, worker: SimulatedWorker, job: _Job) -> None:
        if job.started is None:
            job.started = self.now
        queue.held += 1
        worker.take(self.now)
        self._at(self.now + job.service_s, lambda: self._finish(queue, worker, job))

    def _finish(self, queue: _Queue, worker: SimulatedWorker, job: _Job) -> None:
        worker.finish(self.now, job.service_s)
        queue.finished += 1
        queue.accounts.append((queue.busy_s(self.now), queue.finished))
        if job.fails:
            job.fails = False
            self._at(self.now + queue.model.retry_after_s, lambda: self._redeliver(queue, job))
        else:
            job.ended = self.now
            queue.held -= 1
        if worker.draining and not worker.jobs:
            self._at(self.now + queue.model.exit_s, lambda: self._end(queue, worker))
        self._deliver(queue)

    def _redeliver(self, queue: _Queue, job: _Job) -> None:
        queue.held -= 1
        queue.waiting.appendleft(job)
        self._deliver(queue)

    # Workers

    def carry_out(self, decision: ModelDecision) -> None:
        """Do what was decided, as the scaler does it."""
        queue = self._queues[decision.model]
        for slot in decision.start:
            self._start(queue, slot)
        for id_ in decision.drain:
            worker = queue.workers.get(id_)
            # A worker refuses when it has got a job meanwhile.
            if worker is not None and not worker.jobs and worker.ready is not None and not worker.draining:
                worker.drain(self.now)
                self._at(self.now + queue.model.exit_s, lambda worker=worker: self._end(queue, worker))  # type: ignore[misc]
        for order in decision.stop:
            worker = queue.workers.get(order.worker)
            if worker is not None and not worker.draining:
                worker.stop(self.now)
                self._at(self.now + queue.model.exit_s, lambda worker=worker: self._end(queue, worker))  # type: ignore[misc]

    def _start(self, queue: _Queue, slot: str) -> None:
        model = queue.model
        size = self._takes(model.need, slot)
        if self._free.get(slot, -1) < size:
            self.refused += 1
            return
        self._free[slot] -= size
        number = next(self._order)
        worker = SimulatedWorker(f"{model.name}-{number}", model, slot, queue.version(self.now), self.now)
        queue.workers[worker.id] = worker
        if any(interval.holds(self.now) for interval in model.crashes):
            self._at(self.now + model.crash_s, lambda: self._crash(queue, worker))
        elif not any(interval.holds(self.now) for interval in model.hangs):
            cold_start_s = self._lognormal(model.cold_start_s, model.cold_start_spread)
            self._at(self.now + cold_start_s, lambda: self._ready(queue, worker))

    def _ready(self, queue: _Queue, worker: SimulatedWorker) -> None:
        if worker.ended is None and not worker.draining:
            worker.become_ready(self.now)
            self._deliver(queue)

    def _crash(self, queue: _Queue, worker: SimulatedWorker) -> None:
        if worker.ended is None:
            queue.failed.append(FailedStart(worker.id, "exit status 1"))
            self._end(queue, worker)

    def _end(self, queue: _Queue, worker: SimulatedWorker) -> None:
        if worker.ended is None:
            if worker.ready is None and worker.draining:
                queue.failed.append(FailedStart(worker.id, "SIGTERM"))
            worker.ended = self.now
            self._free[worker.slot] += self._takes(queue.model.need, worker.slot)
            queue.gone_busy_s += worker.busy_s(self.now)
            del queue.workers[worker.id]
            self._gone.append(worker)

    def _takes(self, need: Need, slot: str) -> int:
        if slot in self._slots and need.kind is SlotKind.GPU and need.size <= 0:
            return self._slots[slot].size
        return need.size

    # What the policy is told

    def observe(self) -> Observation:
        """All of it, as it can be seen from outside."""
        return Observation(
            tuple(self._view(queue) for queue in self._queues.values()),
            tuple(
                Slot(slot.id, slot.kind, slot.size, self._free[slot.id], slot.quarantined)
                for slot in self._slots.values()
            ),
        )

    def _view(self, queue: _Queue) -> ModelView:
        model, now = queue.model, self.now
        while queue.arrivals and queue.arrivals[0] <= now - RATE_SPAN_S:
            queue.arrivals.popleft()
        busy_s, finished = queue.busy_s(now), queue.finished
        since_s, since = queue.accounts[0]
        version = queue.version(now)
        failed, queue.failed = tuple(queue.failed), []
        return ModelView(
            name=model.name,
            scaling=model.scaling,
            need=model.need,
            jobs_per_worker=model.jobs_per_worker,
            load_timeout_s=model.load_timeout_s,
            waiting=len(queue.waiting),
            held=queue.held,
            oldest_wait_s=now - queue.waiting[0].arrived if queue.waiting else 0.0,
            arrival_rate=len(queue.arrivals) / RATE_SPAN_S,
            service_s=(busy_s - since_s) / (finished - since) if finished > since else None,
            workers=tuple(worker.view(now) for worker in queue.workers.values()),
            failed_starts=failed,
            version=version,
            outdated=tuple(worker.id for worker in queue.workers.values() if worker.version != version),
        )

    # What came out

    def job_records(self) -> tuple[JobRecord, ...]:
        """All jobs, by model and arrival."""
        return tuple(
            JobRecord(queue.model.name, job.arrived, job.started, job.ended)
            for queue in self._queues.values()
            for job in queue.jobs
        )

    def workers(self) -> list[SimulatedWorker]:
        """All workers there ever were, by the time of their order."""
        there = (worker for queue in self._queues.values() for worker in queue.workers.values())
        return sorted((*self._gone, *there), key=lambda worker: (worker.ordered, worker.id))

    def _at(self, at: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._order), act))

    def _lognormal(self, mean: float, spread: float) -> float:
        if spread <= 0:
            return mean
        return mean * math.exp(self._generator.gauss(-spread * spread / 2, spread))
