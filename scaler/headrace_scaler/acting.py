"""Does what was decided: start, drain, end; each act only while we lead beyond doubt, and none for longer than its
deadline.

What comes of an act is not remembered here: the next observation shows it. Only a start that was refused is, for no
observation would.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import structlog

from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.heartbeat import DrainRequest, WorkerPhase
from headrace_scaler.launchers.port import Launcher, LaunchError, Order
from headrace_scaler.policy.decision import ModelDecision
from headrace_scaler.policy.observation import FailedStart, ModelView
from headrace_storage.connection import Connection
from headrace_storage.control import ask_to_drain

# A call of the launcher that takes longer is given up, and counts as refused.
LAUNCHER_DEADLINE_S = 10.0
# From SIGTERM to SIGKILL, for a worker that is to end and does not. Longer than its own grace and its giving back.
STOP_GRACE_S = 45.0
# An idle worker that was told to drain is gone in a second. After this long it is told by SIGTERM.
DRAIN_DEADLINE_S = 15.0

IF_IDLE = DrainRequest(only_if_idle=True)


class Done(msgspec.Struct, frozen=True):
    """What was done for one model."""

    started: tuple[str, ...] = ()
    drained: tuple[str, ...] = ()
    """Workers that agreed to drain; one that got a job meanwhile refuses."""
    stopped: tuple[str, ...] = ()
    refused: tuple[FailedStart, ...] = ()
    """Starts that the launcher refused."""


class Actor:
    """The hands of the scaler.

    Args:
        connection: the broker.
        launcher: where workers run.
        check: raises `Deposed` if we do not lead beyond doubt; called right before each act.
        rng: for the names of workers.
    """

    def __init__(
        self, connection: Connection, launcher: Launcher, check: Callable[[], None], rng: random.Random
    ) -> None:
        self._connection = connection
        self._launcher = launcher
        self._check = check
        self._rng = rng
        self._log = structlog.get_logger()

    async def act(self, view: ModelView, decision: ModelDecision, now: float) -> Done:
        """Carry out the decision on one model; `now` is the moment of its observation.

        Raises:
            Deposed: somebody else may lead by now; what was not begun is left undone.
        """
        stopped = [stop.worker for stop in decision.stop]
        for worker in (*stopped, *_overdue(view, now)):
            await self._call(partial(self._launcher.stop, worker, STOP_GRACE_S))
        orders = [Order(self._name(view.name), view.name, slot, view.need) for slot in decision.start]
        refused = [
            FailedStart(order.worker, why)
            for order in orders
            if (why := await self._call(partial(self._launcher.start, order))) is not None
        ]
        drained = [worker for worker in decision.drain if await self._drain(worker)]
        not_started = {start.worker for start in refused}
        started = tuple(order.worker for order in orders if order.worker not in not_started)
        return Done(started, tuple(drained), tuple(stopped), tuple(refused))

    async def forget(self, workers: tuple[str, ...]) -> None:
        """Drop what the launcher keeps of workers that ended, once the observation has told of them."""
        for worker in workers:
            await self._call(partial(self._launcher.forget, worker))

    async def _drain(self, worker: str) -> bool:
        self._check()
        try:
            reply = await ask_to_drain(self._connection, worker, IF_IDLE)
        except BrokerUnavailable as error:
            self._log.warning("worker not asked to drain", worker=worker, error=str(error))
            return False
        return reply is not None and reply.draining

    async def _call(self, call: Callable[[], Awaitable[None]]) -> str | None:
        """Have the launcher do something; what it refused it with, if it did."""
        self._check()
        try:
            async with asyncio.timeout(LAUNCHER_DEADLINE_S):
                await call()
        except LaunchError as error:
            self._log.warning("launcher refused", error=str(error))
            return str(error)
        except TimeoutError:
            self._log.warning("launcher does not answer", deadline_s=LAUNCHER_DEADLINE_S)
            return f"the launcher did not answer within {LAUNCHER_DEADLINE_S:g} s"
        return None

    def _name(self, model: str) -> str:
        return f"{model[:48]}-{self._rng.getrandbits(40):010x}"


def _overdue(view: ModelView, now: float) -> list[str]:
    """Workers that drain, have no job, and do not end."""
    return [
        worker.id
        for worker in view.workers
        if worker.phase is WorkerPhase.DRAINING
        and worker.ours
        and not worker.jobs
        and now - worker.since > DRAIN_DEADLINE_S
    ]
