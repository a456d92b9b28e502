"""What Prometheus may know of the scaler: every name, its meaning and its labels; values as they were seen last.

Gauges are read from the last look as a whole, so that a model, a slot or an alert that is gone leaves no number behind.
Only the leader has them: a scaler that waits for the lease shows that it is there and how it sees the broker.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace_contracts.alert import AlertName, WorkerColdStart
from headrace_contracts.cost import SlotKind
from headrace_contracts.heartbeat import ColdStart, WorkerPhase
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.alerting.conditions import Judged, most_workers
from headrace_scaler.broker_metrics import BrokerMetrics
from headrace_scaler.observing.spending import Spend
from headrace_scaler.policy.decision import Blocked
from headrace_scaler.policy.observation import ModelView, Observation, Slot
from headrace_storage.lanes import LaneState

_MODEL: Final = ("model",)
_SLOT: Final = ("slot",)

# Name: meaning, labels.
GAUGES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "headrace_jobs_waiting": ("Jobs in the queue that no worker holds.", ("model", "lane")),
    "headrace_jobs_held": ("Jobs that workers hold, or that wait for their next attempt.", ("model", "lane")),
    "headrace_oldest_wait_seconds": ("Age of the oldest job that no worker holds.", _MODEL),
    "headrace_arrivals_per_second": ("Jobs that arrive, lately.", _MODEL),
    "headrace_service_seconds": ("Worker time that one job takes, lately; absent if never measured.", _MODEL),
    "headrace_workers": ("Workers by phase of their life.", ("model", "phase")),
    "headrace_workers_wanted": ("Workers that are wanted.", _MODEL),
    "headrace_workers_min": ("Workers that are kept without work.", _MODEL),
    "headrace_workers_max": ("Most workers there may be.", _MODEL),
    "headrace_blocked": ("1 where workers that are wanted cannot be started, by reason.", ("model", "reason")),
    "headrace_paused": ("1 where every lane of a model is paused on the broker.", _MODEL),
    "headrace_alert_firing": ("1 where the alert fires.", ("model", "alert")),
    "headrace_alerts_untold": ("Alert messages that the broker has not taken yet.", ()),
    "headrace_slot_cores": ("Cores of a slot.", _SLOT),
    "headrace_slot_free_cores": ("Cores that no worker has been given.", _SLOT),
    "headrace_slot_memory_bytes": ("Memory of a GPU.", _SLOT),
    "headrace_slot_free_memory_bytes": ("Memory of a GPU that no worker has been given and no program taken.", _SLOT),
    "headrace_slot_quarantined": ("1 where nothing may be started, as on a GPU that was lost.", _SLOT),
    "headrace_zygote_memory_bytes": ("Memory of the warm parent process; absent without one.", ()),
}
COUNTERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "headrace_worker_seconds": ("Time of workers by what it went to: starting, busy, idle.", ("model", "kind")),
    "headrace_worker_jobs": ("Jobs that left an engine, however they ended.", _MODEL),
    "headrace_worker_cost": ("Cost of workers, in the operator's currency.", _MODEL),
}

_COLD_START_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_LOOP_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Row = tuple[str, tuple[str, ...], float]


class ScalerMetrics:
    """The metrics of one scaler process, in a registry of their own. Its methods do no I/O.

    Args:
        settings: what alerts fire at is shown too, so that Prometheus' rules have the same thresholds.
    """

    def __init__(self, settings: ScalerSettings) -> None:
        self.registry = CollectorRegistry()
        self._seen: tuple[Row, ...] = ()
        self._zygote: tuple[Row, ...] = ()
        self._spent: tuple[Row, ...] = ()
        self._without_result: set[str] = set()
        """Workers whose cold start was counted, but for its first result."""
        self.registry.register(_Levels(self))
        self.broker = BrokerMetrics(self.registry)
        self._leader = self._gauge("scaler_leader", "1 while this scaler holds the lease.")
        self._loop = Histogram(
            "headrace_scaler_loop_seconds",
            "Time from the beginning of an observation until what was decided is done.",
            buckets=_LOOP_BUCKETS,
            registry=self.registry,
        )
        self._starts = self._counter("worker_starts", "Workers that were started.")
        self._failed_starts = self._counter("worker_failed_starts", "Workers that ended before they were ready.")
        self._drains = self._counter("worker_drains", "Idle workers that were told to end.")
        self._stops = self._counter("worker_stops", "Workers that were ended because they never became ready.")
        self._cold_start = Histogram(
            "headrace_cold_start_seconds",
            "Time from the arrival of a job, or else from the order, until a worker was ready.",
            ("model", "forked"),
            buckets=_COLD_START_BUCKETS,
            registry=self.registry,
        )
        self._cold_start_phase = Histogram(
            "headrace_cold_start_phase_seconds",
            "Where the time of a cold start went; some phases overlap.",
            ("model", "phase"),
            buckets=_COLD_START_BUCKETS,
            registry=self.registry,
        )
        # A threshold of 0 means never: without a number its rule is never true either.
        for name, meaning, threshold in (
            ("alert_backlog_jobs", "Waiting jobs at which the backlog alert fires.", settings.alert_backlog_jobs),
            ("alert_oldest_age_seconds", "Age of a job at which its alert fires.", settings.alert_oldest_age_s),
        ):
            if threshold:
                self._gauge(name, meaning).set(threshold)

    def observed(
        self,
        observation: Observation,
        lanes: Mapping[str, Iterable[LaneState]],
        judged: Iterable[Judged],
        firing: Mapping[str, Iterable[AlertName]],
        untold: int = 0,
    ) -> None:
        """One look, by the leader.

        Args:
            observation: its models, workers and slots; their failed starts are counted.
            lanes: of each model.
            judged: what was decided.
            firing: alerts that fire, by model.
            untold: alert messages that wait for the broker.
        """
        verdicts = {one.model: one for one in judged}
        rows: list[Row] = [("headrace_alerts_untold", (), untold)]
        for lane in (lane for lanes_of_model in lanes.values() for lane in lanes_of_model):
            rows.append(("headrace_jobs_waiting", (lane.model, lane.lane), lane.waiting))
            rows.append(("headrace_jobs_held", (lane.model, lane.lane), lane.held))
        for view in observation.models:
            rows += _of_model(view, verdicts.get(view.name, Judged(view.name)), set(firing.get(view.name, ())))
            for counter in (self._starts, self._drains, self._stops):
                counter.labels(view.name)
            self._failed_starts.labels(view.name).inc(len(view.failed_starts))
        for slot in observation.slots:
            rows += _of_slot(slot)
        self._without_result &= {worker.id for view in observation.models for worker in view.workers}
        self._seen = tuple(rows)

    def acted(self, model: str, *, started: int = 0, drained: int = 0, stopped: int = 0) -> None:
        """Workers of a model were started, told to drain, or ended because they never became ready."""
        self._starts.labels(model).inc(started)
        self._drains.labels(model).inc(drained)
        self._stops.labels(model).inc(stopped)

    def cold_started(self, told: WorkerColdStart) -> None:
        """A worker became ready; told once more when it has its first result."""
        first_result_s = told.phases.first_result_s
        if told.worker in self._without_result:
            self._without_result.discard(told.worker)
            phases = [("first_result", first_result_s)]
        else:
            phases = phases_of(told)
            self._cold_start.labels(told.model, "true" if told.phases.forked else "false").observe(told.ready_s)
            if not first_result_s:
                self._without_result.add(told.worker)
        for phase, duration_s in phases:
            # 0: it was no part of this start.
            if duration_s > 0:
                self._cold_start_phase.labels(told.model, phase).observe(duration_s)

    def looped(self, duration_s: float) -> None:
        """One round of observing, deciding and acting is done."""
        self._loop.observe(duration_s)

    def leads(self, leading: bool) -> None:
        """Whether this scaler holds the lease; one that does not forgets what it saw."""
        self._leader.set(leading)
        if not leading:
            self._seen = self._spent = ()

    def zygote(self, memory_bytes: int | None) -> None:
        """Memory of the warm parent; None: there is none."""
        self._zygote = () if memory_bytes is None else (("headrace_zygote_memory_bytes", (), memory_bytes),)

    def spent(self, spends: Iterable[Spend]) -> None:
        """What each model's workers have cost so far."""
        rows: list[Row] = []
        for one in spends:
            for kind, seconds in (("starting", one.starting_s), ("busy", one.busy_s), ("idle", one.idle_s)):
                rows.append(("headrace_worker_seconds", (one.model, kind), seconds))
            rows.append(("headrace_worker_jobs", (one.model,), one.jobs))
            rows.append(("headrace_worker_cost", (one.model,), one.cost))
        self._spent = tuple(rows)

    def rows(self) -> dict[str, list[Row]]:
        """Everything that is shown as it was seen last, by name."""
        by_name: dict[str, list[Row]] = {}
        for row in (*self._seen, *self._zygote, *self._spent):
            by_name.setdefault(row[0], []).append(row)
        return by_name

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"headrace_{name}", meaning, registry=self.registry)

    def _counter(self, name: str, meaning: str) -> Counter:
        return Counter(f"headrace_{name}", meaning, _MODEL, registry=self.registry)


class _Levels(Collector):
    """Reads the last look when Prometheus asks, in the server's thread: it is replaced as a whole, never changed."""

    def __init__(self, metrics: ScalerMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        rows = self._metrics.rows()
        for kind, table in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for name, (meaning, labels) in table.items():
                family = kind(name, meaning, labels=labels)
                for _, values, value in rows.get(name, ()):
                    family.add_metric(values, value)
                yield family


def phases_of(told: WorkerColdStart) -> list[tuple[str, float]]:
    """Every phase of a cold start, and its seconds."""
    names = [name for name in ColdStart.__struct_fields__ if name.endswith("_s")]
    return [
        ("decide", told.decide_s),
        *((name.removesuffix("_s"), float(getattr(told.phases, name))) for name in names),
    ]


def _of_model(view: ModelView, judged: Judged, firing: set[AlertName]) -> Iterator[Row]:
    model = view.name
    yield "headrace_oldest_wait_seconds", (model,), view.oldest_wait_s
    yield "headrace_arrivals_per_second", (model,), view.arrival_rate
    if view.service_s is not None:
        yield "headrace_service_seconds", (model,), view.service_s
    for phase in WorkerPhase:
        yield "headrace_workers", (model, phase), sum(worker.phase is phase for worker in view.workers)
    yield "headrace_workers_wanted", (model,), judged.target
    yield (
        "headrace_workers_min",
        (model,),
        view.scaling.min_workers if judged.min_workers is None else judged.min_workers,
    )
    yield "headrace_workers_max", (model,), most_workers(view, judged)
    for reason in Blocked:
        if reason is not Blocked.NONE:
            yield "headrace_blocked", (model, reason), judged.blocked is reason
    yield "headrace_paused", (model,), view.paused
    for name in AlertName:
        yield "headrace_alert_firing", (model, name), name in firing


def _of_slot(slot: Slot) -> Iterator[Row]:
    size, free = {
        SlotKind.CPU: ("headrace_slot_cores", "headrace_slot_free_cores"),
        SlotKind.GPU: ("headrace_slot_memory_bytes", "headrace_slot_free_memory_bytes"),
    }[slot.kind]
    yield size, (slot.id,), slot.size
    yield free, (slot.id,), slot.free
    yield "headrace_slot_quarantined", (slot.id,), bool(slot.quarantined)
