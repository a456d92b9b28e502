"""What came out of a simulation: jobs, workers, decisions and what could be seen at each of them, and numbers of it."""

import math
from collections.abc import Iterable, Sequence

import msgspec

from headrace_scaler.policy.decision import ModelDecision


class JobRecord(msgspec.Struct, frozen=True):
    """One job."""

    model: str
    arrived: float
    started: float | None
    """When it first was on a worker; None: never."""
    ended: float | None

    @property
    def wait_s(self) -> float:
        """From its arrival until it was first on a worker; endless if it never was."""
        return math.inf if self.started is None else self.started - self.arrived


class WorkerRecord(msgspec.Struct, frozen=True):
    """One worker. A time that never came is None."""

    id: str
    model: str
    slot: str
    ordered: float
    ready: float | None
    ended: float | None
    busy_s: float
    """With at least one job."""
    job_s: float
    """Sum of the times of its jobs, which is more than `busy_s` where jobs run side by side."""
    jobs: int
    stopped_busy: int
    """Jobs it had when it was ended by order: always 0, or the policy is broken."""

    def uptime_s(self, until: float) -> float:
        """From its order to its end, or to `until`: what a cloud would bill."""
        return min(until, until if self.ended is None else self.ended) - self.ordered

    def ready_s(self, until: float) -> float:
        """From ready to its end."""
        return 0.0 if self.ready is None else max(0.0, min(until, self.ended or until) - self.ready)


class Sample(msgspec.Struct, frozen=True):
    """One model at one decision; kept when it differs from the one before."""

    at: float
    model: str
    waiting: int
    held: int
    starting: int
    idle: int
    busy: int
    draining: int
    target: int


class Decision(msgspec.Struct, frozen=True):
    """A decision that did something, or says something new."""

    at: float
    decision: ModelDecision


class Trace(msgspec.Struct, frozen=True):
    """A whole run."""

    until: float
    jobs: tuple[JobRecord, ...]
    workers: tuple[WorkerRecord, ...]
    samples: tuple[Sample, ...]
    decisions: tuple[Decision, ...]
    refused: int
    """Starts that found no room: always 0, or the policy is broken."""
    decided: int
    """How often the policy was asked."""

    def waits_s(self, model: str | None = None) -> list[float]:
        """Waits of all jobs of a model, or of all, sorted."""
        return sorted(job.wait_s for job in self.jobs if model in (None, job.model))

    def wait_s(self, share: float, model: str | None = None) -> float:
        """The wait that this share of the jobs did not exceed; 0 without jobs."""
        return quantile(self.waits_s(model), share)

    def worker_s(self, model: str | None = None) -> float:
        """Seconds of workers, from order to end."""
        return sum(worker.uptime_s(self.until) for worker in self._workers(model))

    def busy_s(self, model: str | None = None) -> float:
        """Seconds in which workers had at least one job."""
        return sum(worker.busy_s for worker in self._workers(model))

    def utilization(self, model: str | None = None) -> float:
        """Share of the workers' time, cold starts included, in which they had a job; 0 without workers."""
        total_s = self.worker_s(model)
        return self.busy_s(model) / total_s if total_s > 0 else 0.0

    def most_workers(self, model: str | None = None) -> int:
        """Most workers at any moment."""
        steps = [(worker.ordered, 1) for worker in self._workers(model)]
        steps += [(worker.ended, -1) for worker in self._workers(model) if worker.ended is not None]
        most = count = 0
        for _, step in sorted(steps):
            count += step
            most = max(most, count)
        return most

    def _workers(self, model: str | None) -> Iterable[WorkerRecord]:
        return (worker for worker in self.workers if model in (None, worker.model))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of sorted numbers that is not exceeded by this share of them; 0 of none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]
