"""One look at the system, put together from what the broker says. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from headrace.top.speed import Speed
from headrace.worker_phase import count_phases, engines_of
from headrace_contracts.alert import Alert, AlertName, AlertState, ScalingDecision
from headrace_contracts.heartbeat import WorkerPhase, WorkerStatus
from headrace_storage.lanes import LaneState


class GpuUse(msgspec.Struct, frozen=True):
    """One GPU of this machine."""

    index: int
    busy: float | None
    """Share of the time in which it computed, 0 to 1; None: it does not say."""
    used_bytes: int
    total_bytes: int


class ModelRow(msgspec.Struct, frozen=True):
    """One model."""

    name: str
    waiting: int
    held: int
    oldest_wait_s: float | None
    """None: nothing waits."""
    workers: dict[WorkerPhase, int]
    """By phase; those that were ordered and have not spoken yet are not among them."""
    target: int | None
    """Workers that the scaler wants; None: it never said."""
    speed: Speed
    gpus: tuple[int, ...]
    """Those of this machine that its workers are on."""
    decision: ScalingDecision | None
    alerts: tuple[Alert, ...]
    """That fire now, oldest first."""
    registered: bool
    """Whether the registry has it; jobs may wait for one that it has not."""


class View(msgspec.Struct, frozen=True):
    """Everything at one moment."""

    at: datetime
    broker: str
    version: str
    leader: str | None
    """The scaler that leads; None: none runs."""
    slots: dict[str, int]
    """Workers on each slot that has any, as they say themselves."""
    models: tuple[ModelRow, ...]
    gpus: tuple[GpuUse, ...] = ()
    outage: str = ""
    """Why the broker did not answer this time: the rest is what it said before."""
    outage_since: datetime | None = None


class Seen(msgspec.Struct, frozen=True):
    """What a look found, as the broker says it."""

    models: frozenset[str]
    """Of the registry."""
    lanes: Mapping[str, Sequence[LaneState]]
    oldest: Mapping[str, datetime]
    """Since when the oldest waiting job of a model waits."""
    workers: Sequence[WorkerStatus]
    decisions: Mapping[str, ScalingDecision]
    firing: Mapping[str, Sequence[Alert]]
    speeds: Mapping[str, Speed]
    gpus: tuple[GpuUse, ...]
    host: str
    """This machine's name, as workers call it."""


def rows_of(seen: Seen, now: datetime) -> tuple[ModelRow, ...]:
    """A row for each model of the registry, and for each other that jobs wait for, by name."""
    forgotten = {name for name, lanes in seen.lanes.items() if any(lane.waiting or lane.held for lane in lanes)}
    return tuple(_row(name, seen, now) for name in sorted(seen.models | forgotten))


def _row(name: str, seen: Seen, now: datetime) -> ModelRow:
    lanes = seen.lanes.get(name, ())
    since = seen.oldest.get(name)
    decision = seen.decisions.get(name)
    return ModelRow(
        name=name,
        waiting=sum(lane.waiting for lane in lanes),
        held=sum(lane.held for lane in lanes),
        oldest_wait_s=None if since is None else max(0.0, (now - since).total_seconds()),
        workers=count_phases(name, seen.workers),
        target=None if decision is None else decision.target,
        speed=seen.speeds.get(name, Speed()),
        gpus=_gpus_of(name, seen),
        decision=decision,
        alerts=tuple(seen.firing.get(name, ())),
        registered=name in seen.models,
    )


def _gpus_of(model: str, seen: Seen) -> tuple[int, ...]:
    there = {f"gpu:{gpu.index}": gpu.index for gpu in seen.gpus}
    slots = {worker.slot for worker, _ in engines_of(model, seen.workers) if worker.host == seen.host}
    return tuple(sorted(there[slot] for slot in slots if slot in there))


def slots_of(workers: Iterable[WorkerStatus]) -> dict[str, int]:
    """Workers on each slot, by slot; a worker that was started by hand has none."""
    slots = sorted(worker.slot for worker in workers if worker.slot)
    return {slot: slots.count(slot) for slot in slots}


class Firing:
    """Which alerts fire, told by those that began and ended."""

    def __init__(self) -> None:
        self._firing: dict[tuple[str, AlertName], Alert] = {}

    def take(self, alerts: Iterable[Alert]) -> None:
        """Take more of them, in their order."""
        for alert in alerts:
            key = (alert.model, alert.alert)
            self._firing.pop(key, None)
            if alert.state is AlertState.FIRING:
                self._firing[key] = alert

    def by_model(self) -> dict[str, list[Alert]]:
        """Those that fire now, oldest first."""
        found: dict[str, list[Alert]] = {}
        for alert in sorted(self._firing.values(), key=lambda alert: alert.since):
            found.setdefault(alert.model, []).append(alert)
        return found
