"""What Prometheus reads from a scaler."""

from collections.abc import Mapping

import msgspec
from alert_cases import BACKLOG, seen, view, wall
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from headrace_contracts.alert import WorkerColdStart
from headrace_contracts.cost import SlotKind
from headrace_contracts.heartbeat import ColdStart, WorkerPhase
from headrace_contracts.names import Lane
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.alerting.conditions import Judged
from headrace_scaler.metrics import COUNTERS, GAUGES, ScalerMetrics, phases_of
from headrace_scaler.observing.spending import Spend
from headrace_scaler.policy.decision import Blocked
from headrace_scaler.policy.observation import Observation, Slot
from headrace_storage.broker_levels import BrokerLevels, StreamLevel
from headrace_storage.lanes import LaneState

COLD = WorkerColdStart("m", "w-1", wall(0.0), 0.02, ColdStart(spawn_s=0.1, load_s=3.0, forked=True), 3.2)
SPEND = Spend("m", starting_s=10.0, busy_s=60.5, idle_s=5.0, jobs=12, cost=0.25)


def lane(name: Lane, waiting: int, held: int) -> LaneState:
    return LaneState("m", name, waiting, held, delivered=0, ack_wait_s=30.0, most_held=10_000, paused_until=None)


FULL = BrokerLevels(
    healthy=True,
    streams=(StreamLevel("DEAD", 2, 900, 1000), StreamLevel("EVENTS", 7, 500, None)),
    storage_bytes=600,
    storage_limit_bytes=1000,
)


def busy_scaler() -> ScalerMetrics:
    """A scaler that has something to say under every name."""
    metrics = ScalerMetrics(ScalerSettings())
    observation = Observation(
        (view(7, oldest_wait_s=1.5, phases=(WorkerPhase.BUSY, WorkerPhase.BUSY, WorkerPhase.IDLE), failed="exit 1"),),
        (Slot("cpu", SlotKind.CPU, 8, 3), Slot("gpu:0", SlotKind.GPU, 80 << 30, 60 << 30, quarantined="lost")),
    )
    lanes = {"m": (lane(Lane.HIGH, 2, 1), lane(Lane.NORMAL, 5, 0), lane(Lane.LOW, 0, 0))}
    judged = [Judged("m", target=4, blocked=Blocked.NO_SLOT)]
    metrics.leads(True)
    metrics.observed(observation, lanes, judged, {"m": [BACKLOG]}, untold=1)
    metrics.acted("m", started=2, drained=1, stopped=1)
    metrics.cold_started(COLD)
    metrics.looped(0.003)
    metrics.zygote(250_000_000)
    metrics.spent([SPEND])
    metrics.broker.seen(FULL)
    return metrics


def samples(metrics: ScalerMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = generate_latest(metrics.registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"headrace_{name}", frozenset(labels.items())


def test_every_number_is_the_one_that_was_seen() -> None:
    found = samples(busy_scaler())

    expected: Mapping[tuple[str, frozenset[tuple[str, str]]], float] = {
        key("jobs_waiting", model="m", lane="high"): 2,
        key("jobs_waiting", model="m", lane="normal"): 5,
        key("jobs_held", model="m", lane="high"): 1,
        key("oldest_wait_seconds", model="m"): 1.5,
        key("arrivals_per_second", model="m"): 0.5,
        key("service_seconds", model="m"): 2.0,
        key("workers", model="m", phase="busy"): 2,
        key("workers", model="m", phase="idle"): 1,
        key("workers", model="m", phase="starting"): 0,
        key("workers_wanted", model="m"): 4,
        key("workers_min", model="m"): 0,
        key("workers_max", model="m"): 4,
        key("blocked", model="m", reason="no_slot"): 1,
        key("blocked", model="m", reason="crash_loop"): 0,
        key("alert_firing", model="m", alert="backlog"): 1,
        key("alert_firing", model="m", alert="no_worker"): 0,
        key("alerts_untold"): 1,
        key("slot_cores", slot="cpu"): 8,
        key("slot_free_cores", slot="cpu"): 3,
        key("slot_memory_bytes", slot="gpu:0"): 80 << 30,
        key("slot_free_memory_bytes", slot="gpu:0"): 60 << 30,
        key("slot_quarantined", slot="gpu:0"): 1,
        key("slot_quarantined", slot="cpu"): 0,
        key("zygote_memory_bytes"): 250_000_000,
        key("worker_starts_total", model="m"): 2,
        key("worker_failed_starts_total", model="m"): 1,
        key("worker_drains_total", model="m"): 1,
        key("worker_stops_total", model="m"): 1,
        key("cold_start_seconds_sum", model="m", forked="true"): 3.2,
        key("cold_start_phase_seconds_sum", model="m", phase="load"): 3.0,
        key("cold_start_phase_seconds_sum", model="m", phase="decide"): 0.02,
        key("cold_start_phase_seconds_count", model="m", phase="spawn"): 1,
        key("scaler_loop_seconds_sum"): 0.003,
        key("scaler_leader"): 1,
        key("worker_seconds_total", model="m", kind="busy"): 60.5,
        key("worker_seconds_total", model="m", kind="starting"): 10.0,
        key("worker_seconds_total", model="m", kind="idle"): 5.0,
        key("worker_jobs_total", model="m"): 12,
        key("worker_cost_total", model="m"): 0.25,
        key("alert_backlog_jobs"): 100,
        key("alert_oldest_age_seconds"): 60,
        key("broker_healthy"): 1,
        key("broker_storage_bytes"): 600,
        key("broker_storage_limit_bytes"): 1000,
        key("dead_letters"): 2,
        key("stream_bytes", stream="EVENTS"): 500,
        key("stream_limit_bytes", stream="DEAD"): 1000,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert key("stream_limit_bytes", stream="EVENTS") not in found
    # What was no part of the start has no number.
    assert key("cold_start_phase_seconds_count", model="m", phase="weights") not in found


def test_every_name_that_is_declared_is_shown() -> None:
    shown = {name for name, _ in samples(busy_scaler())}

    assert {*GAUGES, *(f"{name}_total" for name in COUNTERS)} <= shown
    assert all(name.startswith("headrace_") for name in shown)


def test_what_is_gone_leaves_no_number_behind() -> None:
    metrics = busy_scaler()
    metrics.observed(seen(view(name="other")), {}, [], {})
    metrics.zygote(None)

    found = samples(metrics)

    levels = {(name, dict(labels).get("model"), dict(labels).get("slot")) for name, labels in found if name in GAUGES}
    assert {model for _, model, _ in levels} == {"other", None}
    assert {slot for _, _, slot in levels} == {"cpu", None}
    assert key("zygote_memory_bytes") not in found
    # What has been counted stays counted.
    assert found[key("worker_starts_total", model="m")] == 2


def test_a_counter_is_there_before_it_counts() -> None:
    metrics = ScalerMetrics(ScalerSettings())
    metrics.observed(seen(view()), {}, [], {})

    found = samples(metrics)

    for name in ("starts", "failed_starts", "drains", "stops"):
        assert found[key(f"worker_{name}_total", model="m")] == 0


def test_a_scaler_that_does_not_lead_shows_nothing_old() -> None:
    metrics = busy_scaler()
    metrics.leads(False)

    found = samples(metrics)

    assert found[key("scaler_leader")] == 0
    assert {name for name, _ in found if name in GAUGES} == {"headrace_zygote_memory_bytes"}
    assert key("worker_cost_total", model="m") not in found


def test_a_cold_start_that_is_told_twice_counts_once() -> None:
    """Once when the worker is ready, and once more when it has its first result."""
    metrics = ScalerMetrics(ScalerSettings())
    metrics.cold_started(COLD)
    with_result = msgspec.structs.replace(COLD, phases=msgspec.structs.replace(COLD.phases, first_result_s=0.4))
    metrics.cold_started(with_result)
    metrics.cold_started(msgspec.structs.replace(with_result, worker="w-2"))

    found = samples(metrics)

    assert found[key("cold_start_seconds_count", model="m", forked="true")] == 2
    assert found[key("cold_start_phase_seconds_count", model="m", phase="load")] == 2
    assert found[key("cold_start_phase_seconds_sum", model="m", phase="first_result")] == 0.8


def test_a_threshold_of_0_has_no_number() -> None:
    found = samples(ScalerMetrics(ScalerSettings(alert_backlog_jobs=0, alert_oldest_age_s=0.0)))

    assert key("alert_backlog_jobs") not in found
    assert key("alert_oldest_age_seconds") not in found


def test_every_phase_of_a_cold_start_is_told() -> None:
    fields = {name for name in ColdStart.__struct_fields__ if name != "forked"}

    assert {f"{phase}_s" for phase, _ in phases_of(COLD)} == fields | {"decide_s"}
