"""The scaler at work: while it holds the lease it observes, decides, acts and tells, once a second, and at once when a
job arrives for a model that has no worker.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable
from typing import NoReturn

import structlog

from headrace_contracts.alert import Alert, ScalingDecision, WorkerColdStart
from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.heartbeat import EngineStatus, WorkerStatus
from headrace_contracts.settings import Settings
from headrace_scaler.acting import Actor, Done, told
from headrace_scaler.launchers.port import Launcher, LaunchError
from headrace_scaler.observing.observe import Look, Observer
from headrace_scaler.policy.decide import decide
from headrace_scaler.policy.decision import Decided, ModelDecision
from headrace_scaler.policy.observation import FailedStart, ModelView, WorkerPhase
from headrace_scaler.policy.state import State
from headrace_storage.alerts import publish_alert
from headrace_storage.arrivals import Arrival, hearing_arrivals
from headrace_storage.connection import Connection
from headrace_storage.leadership import Leadership, LeaseName

Told = Alert | ScalingDecision | WorkerColdStart
"""What the scaler publishes."""

# Between two looks. Longer leaves jobs waiting for a second worker; shorter costs the broker more.
TICK_S = 1.0
# Workers that serve a model now, or will soon: its jobs need not wake us.
_SERVING = (WorkerPhase.STARTING, WorkerPhase.IDLE, WorkerPhase.BUSY)


class Scaler:
    """Starts and stops the workers of all models of the registry. Of several, one leads and the others wait.

    Args:
        settings: of this process.
        launcher: where workers run; entered already.
        clock: for everything.
        name: who we are, for people; made up from the host's name if absent.
        on_told: called with everything that is published; it must not raise.
    """

    def __init__(
        self,
        settings: Settings,
        launcher: Launcher,
        clock: Clock,
        name: str = "",
        on_told: Callable[[Told], None] = lambda _told: None,
    ) -> None:
        self._settings = settings
        self._launcher = launcher
        self._clock = clock
        self._rng = random.SystemRandom()
        self.name = name or f"{socket.gethostname()}-{self._rng.getrandbits(24):06x}"
        self._on_told = on_told
        self.leading = asyncio.Event()
        """Set while we hold the lease."""
        self._log = structlog.get_logger().bind(scaler=self.name)

    async def run(self) -> None:
        """Scale whenever we lead, until canceled; workers run on.

        Raises:
            BrokerUnavailable: no broker at the start, or the connection was given up for good.
        """
        async with Connection(self._settings.nats, name=f"scaler-{self.name}") as connection:
            leadership = Leadership(connection, LeaseName.SCALER, self.name, self._clock)

            async def term() -> None:
                self._log.info("leading", token=leadership.token)
                self.leading.set()
                try:
                    await Term(connection, self._launcher, leadership, self._clock, self._rng, self._on_told).scale()
                finally:
                    self.leading.clear()
                    self._log.info("not leading any more")

            leading = asyncio.create_task(leadership.lead(term))
            closed = asyncio.create_task(connection.closed.wait())
            try:
                await asyncio.wait([leading, closed], return_when=asyncio.FIRST_COMPLETED)
            finally:
                leading.cancel()
                closed.cancel()
                await asyncio.wait([leading, closed])
            if not leading.cancelled():
                leading.result()
            raise BrokerUnavailable(connection.url, connection.last_error or "the connection was closed")


class Term:
    """One term of a leader: it begins with nothing in memory but what the broker and the launcher say."""

    def __init__(
        self,
        connection: Connection,
        launcher: Launcher,
        leadership: Leadership,
        clock: Clock,
        rng: random.Random,
        on_told: Callable[[Told], None],
    ) -> None:
        self._connection = connection
        self._on_told = on_told
        self._clock = clock
        self._observer = Observer(connection, launcher, clock)
        self._actor = Actor(connection, launcher, leadership.check, rng)
        self._state = State()
        self._refused: list[tuple[str, FailedStart]] = []
        self._served: frozenset[str] = frozenset()
        """Models that have a worker, or will soon."""
        self._told: dict[str, tuple[int, str]] = {}
        self._asked_s: dict[str, float] = {}
        """For each worker that was started: how long the job that asked for it had waited."""
        self._starting: dict[str, tuple[WorkerStatus, EngineStatus]] = {}
        """Ready workers whose first result is still to come."""
        self._trouble = ""
        self._wake = asyncio.Event()
        self._log = structlog.get_logger()

    async def scale(self) -> None:
        """Until canceled, or deposed."""
        while True:
            try:
                async with hearing_arrivals(self._connection, self._heard):
                    await self._scale()
            except BrokerUnavailable as error:
                self._tell_trouble(error)
                await asyncio.sleep(TICK_S)

    async def _scale(self) -> NoReturn:
        while True:
            began = self._clock.monotonic()
            self._wake.clear()
            try:
                await self._once()
            except (BrokerUnavailable, LaunchError, TimeoutError) as error:
                self._tell_trouble(error)
            else:
                self._trouble = ""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, began + TICK_S - self._clock.monotonic())):
                    await self._wake.wait()

    def _heard(self, arrival: Arrival) -> None:
        self._observer.heard(arrival)
        if arrival.model not in self._served:
            self._wake.set()

    async def _once(self) -> None:
        """One round: observe, decide, act, tell."""
        look = await self._observer.look(self._refused)
        self._refused.clear()
        now, wall = self._clock.monotonic(), self._clock.now()
        decided = decide(look.observation, self._state, now, wall)
        self._state = decided.state
        await self._act(look, decided, now)
        await self._actor.forget(look.ended)
        await self._tell_cold_starts(look)

    async def _act(self, look: Look, decided: Decided, now: float) -> None:
        served, present = set(), {view.name for view in look.observation.models}
        models = tuple(zip(look.observation.models, decided.models, strict=True))
        # Beside each other: a launcher that hangs over one model must not keep the others waiting.
        all_done = await asyncio.gather(*(self._actor.act(view, decision, now) for view, decision in models))
        for (view, decision), done in zip(models, all_done, strict=True):
            self._refused += [(view.name, failed) for failed in done.refused]
            self._asked_s |= dict.fromkeys(done.started, view.oldest_wait_s if view.waiting else 0.0)
            # A blocked model is looked at once a second, however many jobs arrive for it.
            if done.started or decision.blocked or any(worker.phase in _SERVING for worker in view.workers):
                served.add(view.name)
            await self._tell(view, decision, done)
        self._served = frozenset(served)
        self._told = {model: said for model, said in self._told.items() if model in present}

    async def _tell(self, view: ModelView, decision: ModelDecision, done: Done) -> None:
        """Publish a decision that differs from the one before, or that something was done for."""
        said = (decision.target, decision.blocked.value)
        if said == self._told.get(view.name) and not (done.started or done.drained or done.stopped):
            return
        decision_told = told(view, decision, done, self._clock.now())
        self._log.info(
            "decided",
            model=view.name,
            target=decision.target,
            workers=decision_told.workers,
            started=done.started,
            draining=done.drained,
            stopped=done.stopped,
            blocked=decision.blocked.value,
            reason=decision.reason,
        )
        await self._publish(decision_told)
        self._told[view.name] = said

    async def _publish(self, told: Told) -> None:
        await publish_alert(self._connection, told)
        self._on_told(told)

    async def _tell_cold_starts(self, look: Look) -> None:
        """Once a worker is ready, and once more when it has its first result."""
        for status, engine in look.became_ready:
            await self._publish(self._cold_start(status, engine))
            if not engine.cold_start.first_result_s:
                self._starting[status.id] = (status, engine)
        for status in look.statuses:
            for engine in status.engines:
                if status.id in self._starting and engine.cold_start.first_result_s:
                    del self._starting[status.id]
                    await self._publish(self._cold_start(status, engine))
        present = {status.id for status in look.statuses} | {order.worker for order in look.launched}
        self._starting = {worker: known for worker, known in self._starting.items() if worker in present}
        self._asked_s = {worker: asked_s for worker, asked_s in self._asked_s.items() if worker in present}

    def _cold_start(self, status: WorkerStatus, engine: EngineStatus) -> WorkerColdStart:
        decide_s = self._asked_s.get(status.id, 0.0)
        phases = engine.cold_start
        ready_s = phases.spawn_s + max(
            phases.connect_s, phases.weights_s + phases.engine_s + phases.import_s + phases.load_s + phases.warm_up_s
        )
        return WorkerColdStart(engine.model, status.id, self._clock.now(), decide_s, phases, decide_s + ready_s)

    def _tell_trouble(self, error: Exception) -> None:
        """Once, and not with every round."""
        said = str(error) or type(error).__name__
        if said != self._trouble:
            self._trouble = said
            self._log.warning("cannot scale now", error=said)
