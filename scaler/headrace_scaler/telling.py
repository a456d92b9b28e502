"""Tells what the scaler sees and does: decisions, cold starts and alerts to ALERTS, numbers to Prometheus."""

from collections.abc import Callable, Iterable
from datetime import datetime

import structlog

from headrace_contracts.alert import Alert, ScalingDecision, WorkerColdStart
from headrace_contracts.clock import Clock
from headrace_contracts.heartbeat import EngineStatus, WorkerPhase, WorkerStatus
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.acting import Done
from headrace_scaler.alerting.board import AlertBoard
from headrace_scaler.alerting.conditions import judged_of
from headrace_scaler.metrics import ScalerMetrics
from headrace_scaler.observing.observe import Look
from headrace_scaler.policy.decision import ModelDecision
from headrace_scaler.policy.observation import ModelView
from headrace_storage.alerts import publish_alert
from headrace_storage.connection import Connection

Told = Alert | ScalingDecision | WorkerColdStart
"""What is published."""


class Teller:
    """The voice of one term of leadership."""

    def __init__(
        self,
        connection: Connection,
        settings: ScalerSettings,
        metrics: ScalerMetrics,
        clock: Clock,
        on_told: Callable[[Told], None],
    ) -> None:
        self._connection = connection
        self._metrics = metrics
        self._clock = clock
        self._on_told = on_told
        self._alerts = AlertBoard(settings, on_told)
        self._decided: dict[str, tuple[int, str]] = {}
        """Target and obstacle of each model, as they were told last."""
        self._asked_s: dict[str, float] = {}
        """For each worker that was started: how long the job that asked for it had waited."""
        self._without_result: set[str] = set()
        """Ready workers whose first result is still to come."""
        self._log = structlog.get_logger()

    async def decided(self, view: ModelView, decision: ModelDecision, done: Done) -> None:
        """A decision, if it is another than before or something was done for it.

        Raises:
            BrokerUnavailable: it was not told; it will be, if it is the same the next time.
        """
        self._metrics.acted(view.name, started=len(done.started), drained=len(done.drained), stopped=len(done.stopped))
        self._asked_s |= dict.fromkeys(done.started, view.oldest_wait_s if view.waiting else 0.0)
        said = (decision.target, decision.blocked.value)
        if said == self._decided.get(view.name) and not (done.started or done.drained or done.stopped):
            return
        told = decision_of(view, decision, done, self._clock.now())
        self._log.info(
            "decided",
            model=view.name,
            target=told.target,
            workers=told.workers,
            started=done.started,
            draining=done.drained,
            stopped=done.stopped,
            blocked=told.blocked,
            reason=told.reason,
        )
        await self._publish(told)
        self._decided[view.name] = said

    async def looked(self, look: Look, decisions: Iterable[ModelDecision], now: float, wall: datetime) -> None:
        """Alerts and numbers of one round; alerts wait by themselves for a broker that takes none."""
        views = look.observation.models
        judged = tuple(judged_of(view, decision, wall) for view, decision in zip(views, decisions, strict=True))
        self._decided = {name: said for name, said in self._decided.items() if name in {view.name for view in views}}
        await self._alerts.tell(self._connection, look.observation, judged, now, wall)
        lanes = {view.name: look.lanes.get(view.name, ()) for view in views}
        self._metrics.observed(look.observation, lanes, judged, self._alerts.firing, self._alerts.untold)
        self._metrics.spent(look.spent)

    async def cold_starts(self, look: Look) -> None:
        """Once a worker is ready, and once more when it has its first result.

        Raises:
            BrokerUnavailable: one was not told.
        """
        present = {status.id for status in look.statuses} | {order.worker for order in look.launched}
        self._without_result &= present
        self._asked_s = {worker: asked_s for worker, asked_s in self._asked_s.items() if worker in present}
        for status, engine in look.became_ready:
            await self._cold_start(status, engine)
            if not engine.cold_start.first_result_s:
                self._without_result.add(status.id)
        for status in look.statuses:
            for engine in status.engines:
                if status.id in self._without_result and engine.cold_start.first_result_s:
                    self._without_result.discard(status.id)
                    await self._cold_start(status, engine)

    async def _cold_start(self, status: WorkerStatus, engine: EngineStatus) -> None:
        decide_s = self._asked_s.get(status.id, 0.0)
        phases = engine.cold_start
        ready_s = decide_s + phases.ready_s
        told = WorkerColdStart(engine.model, status.id, self._clock.now(), decide_s, phases, ready_s)
        self._metrics.cold_started(told)
        await self._publish(told)

    async def _publish(self, told: Told) -> None:
        await publish_alert(self._connection, told)
        self._on_told(told)


def decision_of(view: ModelView, decision: ModelDecision, done: Done, at: datetime) -> ScalingDecision:
    """A decision and what was done for it, as everybody may read it."""
    present = [worker for worker in view.workers if worker.phase is not WorkerPhase.DRAINING]
    return ScalingDecision(
        model=view.name,
        at=at,
        target=decision.target,
        workers=len(present),
        busy=sum(worker.phase is WorkerPhase.BUSY for worker in present),
        reason=decision.reason,
        blocked=decision.blocked.value,
        waiting=view.waiting,
        held=view.held,
        started=len(done.started),
        draining=done.drained,
        stopped=done.stopped,
    )
