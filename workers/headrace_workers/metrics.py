"""What Prometheus may know of a worker: how its jobs ended and how long that took, its engines and its GPUs.

Jobs are counted when their result is committed: the one moment that no crash repeats. Levels are read when Prometheus
asks, in the server's thread. Nothing of a job but its model, lane, status and code goes into a label.
"""

import os
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace_contracts.errors import ErrorCode
from headrace_contracts.heartbeat import EngineState
from headrace_contracts.names import Lane
from headrace_contracts.result import Result, Status
from headrace_telemetry.process_metrics import ProcessMetrics
from headrace_workers.gpu_metrics import GpuMetrics

# From a job that meets an idle worker to one that waits for a machine to be bought.
WAIT_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
)
# From a step of a tiny model to the longest audio.
RUN_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
# From a store on the same machine to a big file on a slow line.
STORE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# Each way a job can end, and the codes that go with it.
_ENDS: Final[tuple[tuple[Status, str], ...]] = (
    (Status.SUCCEEDED, ""),
    (Status.EXPIRED, ErrorCode.TTL_EXPIRED),
    (Status.CANCELED, ErrorCode.CANCELED),
    *((Status.FAILED, code) for code in ErrorCode if code not in (ErrorCode.TTL_EXPIRED, ErrorCode.CANCELED)),
)


class WorkerMetrics:
    """The metrics of one worker process, in a registry of their own. Its methods do no I/O."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.process = ProcessMetrics(self.registry, "worker")
        self._queue = self._histogram("queue", "From submission until a worker took the job.", WAIT_BUCKETS)
        self._run = self._histogram("run", "In the engine, for jobs that succeeded.", RUN_BUCKETS)
        self._store = self._histogram("store", "Artifacts stored and checked, for jobs that made any.", STORE_BUCKETS)
        self._total = self._histogram("total", "From submission until the result was committed.", WAIT_BUCKETS)
        self._results = Counter(
            "headrace_results",
            "Jobs that ended, by how; canceled ones where a worker had them.",
            ("model", "lane", "status", "code"),
            registry=self.registry,
        )
        self._retries = Counter(
            "headrace_retries",
            "Attempts that failed and are followed by another.",
            ("model", "code"),
            registry=self.registry,
        )
        self._engines = _Engines()
        self.registry.register(self._engines)
        self.registry.register(GpuMetrics(os.environ.get("CUDA_VISIBLE_DEVICES")))

    def serves(self, model: str, state: Callable[[], EngineState]) -> None:
        """Show a model's numbers from now on, at zero: a rate begins with the first job, and not with the second.

        Args:
            model: its name.
            state: asked when Prometheus asks.
        """
        for lane in Lane:
            for histogram in (self._queue, self._run, self._store, self._total):
                histogram.labels(model, lane)
            for status, code in _ENDS:
                self._results.labels(model, lane, status, code)
        for code in ErrorCode:
            self._retries.labels(model, code)
        self._engines.states = {**self._engines.states, model: state}

    def ended(self, lane: Lane, result: Result, now: datetime) -> None:
        """A result was committed: ours, and the only one of its job.

        Args:
            lane: of the job.
            result: what was committed.
            now: when the broker had taken it.
        """
        labels, timings = (result.model, lane), result.timings
        self._total.labels(*labels).observe(max(0.0, (now - result.created_at).total_seconds()))
        self._queue.labels(*labels).observe(timings.queued_s + timings.load_s)
        if result.status is Status.SUCCEEDED:
            self._run.labels(*labels).observe(timings.run_s)
        if result.artifacts:
            self._store.labels(*labels).observe(timings.store_s)
        self._results.labels(*labels, result.status, "" if result.error is None else result.error.code).inc()

    def canceled(self, model: str, lane: Lane) -> None:
        """A job was canceled while it was here: whoever canceled it has committed the result."""
        self._results.labels(model, lane, Status.CANCELED, ErrorCode.CANCELED).inc()

    def retried(self, model: str, code: ErrorCode) -> None:
        """An attempt failed, and the job will have another."""
        self._retries.labels(model, code).inc()

    def _histogram(self, what: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"headrace_job_{what}_seconds", meaning, ("model", "lane"), buckets=buckets, registry=self.registry
        )


class _Engines(Collector):
    """The state that each engine is in now."""

    def __init__(self) -> None:
        self.states: dict[str, Callable[[], EngineState]] = {}
        """Replaced as a whole, never changed: it is read in another thread."""

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "headrace_engine_state", "1 for the state that a model's engine is in.", labels=("model", "state")
        )
        for model, ask in self.states.items():
            now = ask()
            for state in EngineState:
                family.add_metric((model, state), float(state is now))
        yield family
