"""What a busy system shows Prometheus: our own metrics with something under every name, served and scraped for real."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
from alert_cases import BACKLOG, START, view
from prometheus_client import CollectorRegistry

from headrace_contracts.alert import WorkerColdStart
from headrace_contracts.cost import SlotKind
from headrace_contracts.errors import ErrorCode, Fault
from headrace_contracts.heartbeat import ColdStart, EngineState, WorkerPhase
from headrace_contracts.names import Lane
from headrace_contracts.result import Result, ResultError, Status, Timings
from headrace_contracts.settings import MetricsSettings, ScalerSettings
from headrace_scaler.alerting.conditions import Judged
from headrace_scaler.metrics import ScalerMetrics
from headrace_scaler.observing.spending import Spend
from headrace_scaler.policy.decision import Blocked
from headrace_scaler.policy.observation import Observation, Slot
from headrace_storage.broker_levels import BrokerLevels, StreamLevel
from headrace_storage.lanes import LaneState
from headrace_telemetry.metrics_endpoint import serving_metrics
from headrace_telemetry.process_metrics import ProcessMetrics
from headrace_workers.gpu_metrics import GpuMetrics, GpuUse
from headrace_workers.metrics import WorkerMetrics

_GIB = 1 << 30


class Feed:
    """A scaler, a worker and a GPU. The worker's GPUs are not this machine's: it may have none."""

    def __init__(self) -> None:
        self.scaler = ScalerMetrics(ScalerSettings())
        ProcessMetrics(self.scaler.registry, "scaler").connected = lambda: True
        self.worker = WorkerMetrics()
        self.worker.process.connected = lambda: True
        self.worker.serves("m", lambda: EngineState.READY)
        self.gpu = CollectorRegistry()
        self.gpu.register(GpuMetrics(None, lambda _: (GpuUse("GPU-0", 0.5, 20 * _GIB, 80 * _GIB),)))
        self._moments = 0
        self.go_on()

    @property
    def registries(self) -> tuple[CollectorRegistry, ...]:
        return self.scaler.registry, self.worker.registry, self.gpu

    def names(self) -> set[str]:
        """Every name that a scrape may have, whether there is a value yet or not."""
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        families = [family for registry in self.registries for family in registry.collect()]
        return {f"{family.name}{suffix}" for family in families for suffix in suffixes.get(family.type, ("",))}

    def go_on(self) -> None:
        """Some time passes: jobs end well and badly, workers start, and cost."""
        self._moments += 1
        self._scaler_goes_on()
        for lane in Lane:
            for _ in range(3):
                self.worker.ended(lane, _result(Status.SUCCEEDED), START + timedelta(seconds=3))
                self.worker.ended(lane, _result(Status.FAILED), START + timedelta(seconds=3))
        for _ in range(3):
            self.worker.retried("m", ErrorCode.ENGINE_CRASHED)

    def _scaler_goes_on(self) -> None:
        phases = (WorkerPhase.BUSY, WorkerPhase.IDLE, WorkerPhase.STARTING)
        slots = (Slot("cpu", SlotKind.CPU, 8, 3), Slot("gpu:0", SlotKind.GPU, 80 * _GIB, 60 * _GIB))
        observation = Observation((view(7, oldest_wait_s=1.5, phases=phases, failed="exit 1"),), slots)
        lanes = {"m": [LaneState("m", lane, 2, 1, 0, 30.0, 10_000, None) for lane in Lane]}
        judged = [Judged("m", target=4, blocked=Blocked.NO_SLOT)]
        self.scaler.leads(True)
        self.scaler.observed(observation, lanes, judged, {"m": [BACKLOG]})
        self.scaler.zygote(250_000_000)
        streams = (StreamLevel("JOBS", 70, 7 * _GIB, 10 * _GIB), StreamLevel("DEAD", 2, 900, 1000))
        self.scaler.broker.seen(BrokerLevels(True, streams, 8 * _GIB, 32 * _GIB))
        self.scaler.looped(0.003)
        for count in range(3):
            started = ColdStart(spawn_s=0.1, load_s=3.0, forked=True)
            self.scaler.cold_started(WorkerColdStart("m", f"w-{self._moments}-{count}", START, 0.02, started, 3.2))
        spent_s = 10.0 * self._moments
        self.scaler.spent([Spend("m", starting_s=spent_s, busy_s=spent_s, idle_s=spent_s, jobs=1, cost=0.1 * spent_s)])

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[list[str]]:
        """Addresses, in the order of `registries`."""
        async with contextlib.AsyncExitStack() as stack:
            served = [serving_metrics(registry, MetricsSettings(port=-1)) for registry in self.registries]
            yield [await stack.enter_async_context(each) for each in served]


def _result(status: Status) -> Result:
    well = status is Status.SUCCEEDED
    return Result(
        id="j",
        model="m",
        version="1",
        status=status,
        output=msgspec.Raw(b"null"),
        attempts=1,
        created_at=START,
        completed_at=START + timedelta(seconds=2),
        error=None if well else ResultError(ErrorCode.MODEL_ERROR, "", Fault.MODEL, retryable=False),
        timings=Timings(queued_s=0.5, run_s=1.0, store_s=0.2),
    )
