"""What phase each worker is in, from its heartbeat and from what the launcher says. No I/O.

Keeps since when a worker is in its phase, and whether it ever was ready, for as long as it is there.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from headrace_contracts.cost import SlotKind
from headrace_contracts.heartbeat import EngineState, EngineStatus, WorkerPhase, WorkerStatus
from headrace_scaler.launchers.port import ENDED_WELL, Launched
from headrace_scaler.policy.observation import FailedStart, Need, WorkerView

# A worker that was ready and does not speak is given this long, as after a restart of the broker, which forgets all
# heartbeats. It may be in the middle of a job.
SILENCE_S = 60.0
# Nothing can be said of the time between two looks that are farther apart: the broker may have been away.
LOOKS_APART_S = 10.0


class Seen(msgspec.Struct, frozen=True):
    """The workers of all models at one moment, by model."""

    workers: Mapping[str, tuple[WorkerView, ...]]
    failed_starts: Mapping[str, tuple[FailedStart, ...]]
    outdated: Mapping[str, tuple[str, ...]]
    ended: tuple[str, ...]
    """Workers that the launcher may forget."""
    became_ready: tuple[tuple[WorkerStatus, EngineStatus], ...]
    """For the first time since we look."""


class WorkerWatch:
    """All workers, over time."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._last_look = 0.0
        self._silent_since: dict[str, float] = {}
        self._phases: dict[tuple[str, str], tuple[WorkerPhase, float]] = {}
        self._ready: set[str] = set()
        self._reported: set[str] = set()
        self._gone: set[str] = set()
        self._agreed: set[str] = set()

    def agreed_to_drain(self, workers: Iterable[str]) -> None:
        """These take no more jobs, whatever their last heartbeats say."""
        self._agreed.update(workers)

    def look(
        self,
        statuses: Iterable[WorkerStatus],
        launched: Iterable[Launched],
        runs_as: Mapping[str, str],
        now: float,
        wall: datetime,
    ) -> Seen:
        """Put heartbeats and the launcher's list together.

        Args:
            statuses: heartbeats of all workers.
            launched: what the launcher started.
            runs_as: for each model of the registry, what it runs as now.
            now: monotonic seconds.
            wall: the date, to make ages of the dates in heartbeats.
        """
        self._began = now if self._began is None else self._began
        if now - self._last_look > LOOKS_APART_S:
            self._silent_since.clear()
        self._last_look = now
        by_id = {status.id: status for status in statuses}
        orders = {order.worker: order for order in launched}
        views: dict[str, list[WorkerView]] = {}
        outdated: dict[str, list[str]] = {}
        became_ready = []
        for status in by_id.values():
            order = orders.get(status.id)
            if order is not None and order.ended is not None:
                self._gone.add(status.id)
            if status.id in self._gone:
                continue  # its last heartbeat outlives it, and what the launcher knew of it
            for engine in status.engines:
                is_first = status.id not in self._ready and _was_ready(engine)
                if is_first:
                    self._ready.add(status.id)
                view = self._view(status, engine, order, now, wall)
                views.setdefault(engine.model, []).append(view)
                if view.ours and engine.runs_as and engine.runs_as != runs_as.get(engine.model, engine.runs_as):
                    outdated.setdefault(engine.model, []).append(status.id)
                if view.ours and is_first:
                    became_ready.append((status, engine))
        failed, ended = self._ended(orders.values())
        for order in orders.values():
            # The first heartbeat of a worker may come before its engine is known.
            if order.ended is None and not (order.worker in by_id and by_id[order.worker].engines):
                views.setdefault(order.model, []).append(self._silent(order, now, wall))
        self._forget(set(by_id) | set(orders))
        return Seen(
            {model: tuple(found) for model, found in views.items()},
            failed,
            {model: tuple(found) for model, found in outdated.items()},
            ended,
            tuple(became_ready),
        )

    def _view(
        self, status: WorkerStatus, engine: EngineStatus, order: Launched | None, now: float, wall: datetime
    ) -> WorkerView:
        phase = WorkerPhase.DRAINING if status.id in self._agreed else phase_of(status, engine)
        if phase is WorkerPhase.IDLE and engine.idle_since is not None:
            since = now - max(0.0, (wall - engine.idle_since).total_seconds())
        elif order is not None and phase is WorkerPhase.STARTING and status.id not in self._ready:
            since = self._ordered(order, now, wall)
        else:
            before, since = self._phases.get((status.id, engine.model), (phase, now))
            since = since if before is phase else now
        self._phases[status.id, engine.model] = (phase, since)
        self._silent_since.pop(status.id, None)
        return WorkerView(
            id=status.id,
            phase=phase,
            since=since,
            jobs=len(engine.running) + engine.held,
            slot=status.slot,
            need=order.need if order is not None else Need(SlotKind.CPU, 0),
            # Another scaler's before us: it has a slot, and drains when it is asked to.
            ours=order is not None or bool(status.slot),
            detail=engine.detail,
        )

    def _silent(self, order: Launched, now: float, wall: datetime) -> WorkerView:
        """A worker that runs, as its launcher says, and has no heartbeat."""
        silent_since = self._silent_since.setdefault(order.worker, now)
        if order.worker in self._agreed:
            # It has taken back its heartbeat, and is about to end.
            phase, since, detail = WorkerPhase.DRAINING, silent_since, ""
        elif order.worker not in self._ready:
            phase, since, detail = WorkerPhase.STARTING, self._ordered(order, now, wall), ""
        elif now - silent_since < SILENCE_S:
            phase, since, detail = WorkerPhase.BUSY, silent_since, "no heartbeat; it may have a job"
        else:
            phase, since = WorkerPhase.UNHEALTHY, silent_since
            detail = f"no heartbeat for {now - silent_since:.0f} s"
        return WorkerView(order.worker, phase, since, 0, order.slot, order.need, detail=detail)

    def _ordered(self, order: Launched, now: float, wall: datetime) -> float:
        """When a worker was ordered; not before we began to look, for who knows what it did until then."""
        assert self._began is not None
        return max(self._began, now - max(0.0, wall.timestamp() - order.ordered_at))

    def _ended(self, orders: Iterable[Launched]) -> tuple[dict[str, tuple[FailedStart, ...]], tuple[str, ...]]:
        """Workers that ended: those that never were ready have failed; each is told once."""
        failed: dict[str, tuple[FailedStart, ...]] = {}
        ended = []
        for order in orders:
            if order.ended is None:
                continue
            ended.append(order.worker)
            if order.worker in self._reported:
                continue
            self._reported.add(order.worker)
            if order.worker not in self._ready and order.ended != ENDED_WELL:
                failed[order.model] = (*failed.get(order.model, ()), FailedStart(order.worker, order.ended))
        return failed, tuple(ended)

    def _forget(self, present: set[str]) -> None:
        self._phases = {key: value for key, value in self._phases.items() if key[0] in present}
        self._ready &= present
        self._reported &= present
        self._gone &= present
        self._agreed &= present
        self._silent_since = {worker: since for worker, since in self._silent_since.items() if worker in present}


def phase_of(status: WorkerStatus, engine: EngineStatus) -> WorkerPhase:
    """Where a worker is, by its heartbeat; one that has a job is never called anything else than busy or draining."""
    if status.draining:
        return WorkerPhase.DRAINING
    if engine.running or engine.held:
        return WorkerPhase.BUSY
    match engine.state:
        case EngineState.UNHEALTHY:
            return WorkerPhase.UNHEALTHY
        case EngineState.READY if engine.idle_since is not None:
            return WorkerPhase.IDLE
        case EngineState.RECOVERING if engine.idle_since is not None:
            return WorkerPhase.IDLE
        case _:
            return WorkerPhase.STARTING


def _was_ready(engine: EngineStatus) -> bool:
    return engine.idle_since is not None or bool(engine.running) or engine.account.jobs > 0
