"""One simulated worker: what it is, and what a heartbeat says of it a moment later."""

from collections import deque

from headrace_contracts.heartbeat import WorkerPhase
from headrace_scaler.policy.observation import WorkerView
from headrace_scaler.simulation.scene import SimulatedModel
from headrace_scaler.simulation.trace import WorkerRecord


class SimulatedWorker:
    """Mutable; the world moves it."""

    def __init__(self, id_: str, model: SimulatedModel, slot: str, version: str, ordered: float) -> None:
        self.id = id_
        self.model = model
        self.slot = slot
        self.version = version
        self.ordered = ordered
        self.ready: float | None = None
        self.ended: float | None = None
        self.draining = False
        self.jobs = 0
        self.free_since = ordered
        self._busy_s = 0.0
        self._job_s = 0.0
        self._served = 0
        self._busy_since = 0.0
        self._stopped_busy = 0
        # What heartbeats said, and since when the policy can see it.
        self._seen: deque[tuple[float, WorkerView]] = deque()
        self._show(ordered)

    @property
    def takes_jobs(self) -> bool:
        """It would be given a job."""
        return self.ready is not None and not self.draining and self.jobs < self.model.jobs_per_worker

    def become_ready(self, now: float) -> None:
        """Its cold start is over."""
        self.ready = self.free_since = now
        self._show(now)

    def take(self, now: float) -> None:
        """Begin a job."""
        if not self.jobs:
            self._busy_since = now
        self.jobs += 1
        self._show(now)

    def finish(self, now: float, job_s: float) -> None:
        """End a job that took so long."""
        self.jobs -= 1
        self._served += 1
        self._job_s += job_s
        self.free_since = now
        if not self.jobs:
            self._busy_s += now - self._busy_since
        self._show(now)

    def drain(self, now: float) -> None:
        """Take no more jobs."""
        self.draining = True
        self._show(now)

    def stop(self, now: float) -> None:
        """End, whatever it does."""
        self._stopped_busy = self.jobs
        self.drain(now)

    def view(self, now: float) -> WorkerView:
        """What the policy sees of it."""
        while len(self._seen) > 1 and self._seen[1][0] <= now:
            self._seen.popleft()
        return self._seen[0][1]

    def busy_s(self, now: float) -> float:
        """Time with at least one job, until now."""
        return self._busy_s + (now - self._busy_since if self.jobs else 0.0)

    def record(self, until: float) -> WorkerRecord:
        """What came of it."""
        return WorkerRecord(
            self.id, self.model.name, self.slot, self.ordered, self.ready, self.ended,
            self.busy_s(until), self._job_s, self._served, self._stopped_busy,
        )  # fmt: skip

    def _show(self, now: float) -> None:
        if self.draining:
            phase = WorkerPhase.DRAINING
        elif self.ready is None:
            phase = WorkerPhase.STARTING
        else:
            phase = WorkerPhase.BUSY if self.jobs else WorkerPhase.IDLE
        since = self.ordered if phase is WorkerPhase.STARTING else self.free_since
        view = WorkerView(self.id, phase, since, self.jobs, self.slot, self.model.need)
        # An order is known at once; everything else is said by a heartbeat.
        self._seen.append((now + self.model.heartbeat_lag_s if self._seen else now, view))
