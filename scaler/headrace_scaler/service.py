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

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.heartbeat import WorkerPhase
from headrace_contracts.settings import Settings
from headrace_scaler.acting import Actor, Done
from headrace_scaler.launchers.port import Launcher, LaunchError
from headrace_scaler.metrics import ScalerMetrics
from headrace_scaler.observing.observe import Look, Observer
from headrace_scaler.policy.decide import decide
from headrace_scaler.policy.decision import Decided
from headrace_scaler.policy.observation import FailedStart
from headrace_scaler.policy.state import State
from headrace_scaler.targets import Targets
from headrace_scaler.telling import Teller, Told
from headrace_storage.arrivals import Arrival, hearing_arrivals
from headrace_storage.connection import Connection
from headrace_storage.leadership import Leadership, LeaseName
from headrace_telemetry.metrics_endpoint import serving_metrics
from headrace_telemetry.process_metrics import ProcessMetrics

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
        on_told: called with everything that is published; it must not raise.
    """

    def __init__(
        self,
        settings: Settings,
        launcher: Launcher,
        clock: Clock,
        on_told: Callable[[Told], None] = lambda _told: None,
    ) -> None:
        self._settings = settings
        self._launcher = launcher
        self._clock = clock
        self._on_told = on_told
        self._rng = random.SystemRandom()
        self.name = f"{socket.gethostname()}-{self._rng.getrandbits(24):06x}"
        self.metrics = ScalerMetrics(settings.scaler)
        self.metrics_at = ""
        """`host:port` of the metrics, and of `/targets`; empty where nothing is served."""
        self._process = ProcessMetrics(self.metrics.registry, "scaler")
        self._targets = Targets()
        self.leading = asyncio.Event()
        """Set while we hold the lease."""
        self._log = structlog.get_logger().bind(scaler=self.name)

    async def run(self) -> NoReturn:
        """Scale whenever we lead, until canceled; workers run on.

        Raises:
            BrokerUnavailable: no broker at the start, or the connection was given up for good.
            SettingsError: the port of the metrics is taken.
        """
        async with contextlib.AsyncExitStack() as stack:
            self.metrics_at = await stack.enter_async_context(
                serving_metrics(self.metrics.registry, self._settings.metrics, {"/targets": self._targets.page})
            )
            connection = await stack.enter_async_context(Connection(self._settings.nats, name=f"scaler-{self.name}"))
            self._process.connected = lambda: connection.is_connected
            looking = [
                asyncio.create_task(self._targets.keep(connection)),
                asyncio.create_task(self.metrics.broker.keep(connection, self._settings)),
            ]
            leadership = Leadership(connection, LeaseName.SCALER, self.name, self._clock)
            leading = asyncio.create_task(leadership.lead(lambda: self._term(connection, leadership)))
            closed = asyncio.create_task(connection.closed.wait())
            try:
                await asyncio.wait([leading, closed], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (leading, closed, *looking):
                    task.cancel()
                await asyncio.wait([leading, closed, *looking])
            if not leading.cancelled():
                leading.result()
            raise BrokerUnavailable(connection.url, connection.last_error or "the connection was closed")

    async def _term(self, connection: Connection, leadership: Leadership) -> None:
        self._log.info("leading", token=leadership.token)
        observer = Observer(connection, self._launcher, self._settings.scaler, self._clock)
        actor = Actor(connection, self._launcher, leadership.check, self._rng)
        teller = Teller(connection, self._settings.scaler, self.metrics, self._clock, self._on_told)
        self.metrics.leads(leading=True)
        self.leading.set()
        try:
            await Term(connection, observer, actor, teller, self.metrics, self._clock).scale()
        finally:
            self.leading.clear()
            self.metrics.leads(leading=False)
            self._log.info("not leading any more")


class Term:
    """One term of a leader: it begins with nothing in memory but what the broker and the launcher say."""

    def __init__(
        self,
        connection: Connection,
        observer: Observer,
        actor: Actor,
        teller: Teller,
        metrics: ScalerMetrics,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._observer = observer
        self._actor = actor
        self._teller = teller
        self._metrics = metrics
        self._clock = clock
        self._state = State()
        self._refused: list[tuple[str, FailedStart]] = []
        """Starts that the launcher refused since the last look."""
        self._served: frozenset[str] = frozenset()
        """Models that have a worker, or will soon."""
        self._troubles: tuple[str, ...] = ()
        self._wake = asyncio.Event()
        self._log = structlog.get_logger()

    async def scale(self) -> NoReturn:
        """Until canceled.

        Raises:
            Deposed: somebody else may lead by now.
        """
        while True:
            try:
                async with hearing_arrivals(self._connection, self._heard):
                    await self._scale()
            except BrokerUnavailable as error:
                self._tell_troubles(str(error))
                await asyncio.sleep(TICK_S)

    async def _scale(self) -> NoReturn:
        while True:
            began = self._clock.monotonic()
            self._wake.clear()
            try:
                await self._once()
            except (BrokerUnavailable, LaunchError, TimeoutError) as error:
                self._tell_troubles(str(error) or "the launcher does not answer")
            took_s = self._clock.monotonic() - began
            self._metrics.looped(took_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, TICK_S - took_s)):
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
        all_done = await self._act(look, decided, now)
        await self._actor.forget(look.ended)
        # First: alerts and numbers wait for nobody, while a broker that stores nothing lets the rest fail.
        await self._teller.looked(look, decided.models, now, wall)
        for view, decision, done in zip(look.observation.models, decided.models, all_done, strict=True):
            await self._teller.decided(view, decision, done)
        await self._teller.cold_starts(look)
        self._tell_troubles(*(f"the entry of model {name} cannot be read" for name in look.unreadable))

    async def _act(self, look: Look, decided: Decided, now: float) -> list[Done]:
        models = tuple(zip(look.observation.models, decided.models, strict=True))
        # Beside each other: a launcher that hangs over one model must not keep the others waiting.
        all_done = await asyncio.gather(*(self._actor.act(view, decision, now) for view, decision in models))
        served = set()
        for (view, decision), done in zip(models, all_done, strict=True):
            self._refused += [(view.name, failed) for failed in done.refused]
            self._observer.agreed_to_drain(done.drained)
            # A worker that agreed to drain serves no more, though it was idle when we looked.
            serve = any(worker.phase in _SERVING and worker.id not in done.drained for worker in view.workers)
            # A blocked model is looked at once a second, however many jobs arrive for it.
            if done.started or decision.blocked or serve:
                served.add(view.name)
        self._served = frozenset(served)
        return all_done

    def _tell_troubles(self, *troubles: str) -> None:
        """Each once, and not with every round."""
        for said in troubles:
            if said not in self._troubles:
                self._log.warning("cannot scale as it should", reason=said)
        self._troubles = troubles
