"""One look at everything: asks the broker and the launcher, and makes the policy's observation of the answers."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from headrace_contracts.clock import Clock
from headrace_contracts.cost import SlotKind
from headrace_contracts.heartbeat import EngineStatus, WorkerStatus
from headrace_contracts.model import ModelSpec, runs_as
from headrace_contracts.scaling import Scaling
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.launchers.port import Launched, Launcher
from headrace_scaler.launchers.slots import need_of
from headrace_scaler.observing.arrivals import Arrivals
from headrace_scaler.observing.service_time import ServiceTimes
from headrace_scaler.observing.spending import Spend, Spending
from headrace_scaler.observing.workers import Seen, WorkerWatch
from headrace_scaler.policy.observation import FailedStart, ModelView, Need, Observation, Slot, WorkerView
from headrace_storage.arrivals import Arrival
from headrace_storage.connection import Connection
from headrace_storage.lanes import LaneState, lanes_of_all, oldest_waiting
from headrace_storage.registry_reader import RegistryReader
from headrace_storage.workers import list_workers

# A launcher that takes longer is hung; the observation fails, and nothing is decided on half of the facts.
LAUNCHER_DEADLINE_S = 10.0


class Look(msgspec.Struct, frozen=True):
    """What one look found."""

    observation: Observation
    lanes: Mapping[str, tuple[LaneState, ...]]
    ended: tuple[str, ...]
    """Workers that the launcher may forget."""
    became_ready: tuple[tuple[WorkerStatus, EngineStatus], ...]
    statuses: tuple[WorkerStatus, ...]
    launched: tuple[Launched, ...]
    spent: tuple[Spend, ...]
    """What the workers of each model have cost since we look."""
    unreadable: tuple[str, ...]
    """Models whose entries were written by another version, or by hand: nothing is done for them."""


class Observer:
    """Looks at the queue, the workers and the slots; remembers what only time shows (rates, service times)."""

    def __init__(self, connection: Connection, launcher: Launcher, prices: ScalerSettings, clock: Clock) -> None:
        self._connection = connection
        self._launcher = launcher
        self._clock = clock
        self._registry = RegistryReader(connection)
        self._arrivals = Arrivals()
        self._service_times = ServiceTimes()
        self._spending = Spending(prices)
        self._workers = WorkerWatch()

    def heard(self, arrival: Arrival) -> None:
        """A job was stored."""
        self._arrivals.heard(arrival, self._clock.monotonic())

    def agreed_to_drain(self, workers: Iterable[str]) -> None:
        """These answered that they take no more jobs: their heartbeats say so a moment later."""
        self._workers.agreed_to_drain(workers)

    async def look(self, refused: Iterable[tuple[str, FailedStart]] = ()) -> Look:
        """Ask for everything, at once.

        Args:
            refused: model and reason of each start that the launcher refused since the look before.

        Raises:
            BrokerUnavailable: the broker does not answer.
            LaunchError: the launcher does not.
            TimeoutError: the launcher takes too long.
        """
        models, lanes, statuses, (slots, launched) = await asyncio.gather(
            self._registry.models(),
            lanes_of_all(self._connection),
            list_workers(self._connection),
            self._ask_launcher(),
        )
        specs = [spec for spec in models.values() if spec is not None]
        waits = await asyncio.gather(*(self._oldest_wait_s(lanes.get(spec.name, ())) for spec in specs))
        # What is told once, as the end of a worker, is taken in when nothing can go wrong any more.
        now, wall = self._clock.monotonic(), self._clock.now()
        self._service_times.update(statuses)
        self._spending.update(statuses, {spec.name: spec for spec in specs})
        versions = {spec.name: runs_as(spec) for spec in specs}
        seen = self._workers.look(statuses, launched, versions, now, wall)
        views = tuple(
            self._model(spec, versions[spec.name], lanes.get(spec.name, ()), wait_s, seen, slots, refused, now)
            for spec, wait_s in zip(specs, waits, strict=True)
        )
        views += tuple(_removed(model, workers) for model, workers in seen.workers.items() if model not in models)
        return Look(
            Observation(views, slots),
            lanes,
            seen.ended,
            seen.became_ready,
            tuple(statuses),
            launched,
            self._spending.so_far,
            tuple(name for name, spec in models.items() if spec is None),
        )

    async def _ask_launcher(self) -> tuple[tuple[Slot, ...], tuple[Launched, ...]]:
        async with asyncio.timeout(LAUNCHER_DEADLINE_S):
            return await self._launcher.slots(), await self._launcher.running()

    async def _oldest_wait_s(self, lanes: Sequence[LaneState]) -> float:
        """Age of the oldest job that no worker ever had: as was heard, else as the broker says."""
        ages = [0.0]
        for lane in lanes:
            if not lane.waiting:
                continue
            stored_at = self._arrivals.oldest_after(lane.model, lane.lane, lane.delivered, lane.waiting)
            if stored_at is None:
                stored = await oldest_waiting(self._connection, lane)
                if stored is None:
                    continue
                stored_at = stored.stored_at
            ages.append((self._clock.now() - stored_at).total_seconds())
        return max(ages)

    def _model(
        self,
        spec: ModelSpec,
        version: str,
        lanes: Sequence[LaneState],
        oldest_wait_s: float,
        seen: Seen,
        slots: Sequence[Slot],
        refused: Iterable[tuple[str, FailedStart]],
        now: float,
    ) -> ModelView:
        name = spec.name
        return ModelView(
            name=name,
            scaling=spec.scaling,
            need=need_of(spec, slots),
            jobs_per_worker=spec.batching.max_size,
            load_timeout_s=spec.timeouts.load_s,
            waiting=sum(lane.waiting for lane in lanes),
            held=sum(lane.held for lane in lanes),
            oldest_wait_s=oldest_wait_s,
            arrival_rate=self._arrivals.rate(name, now),
            service_s=self._service_times.of(name),
            workers=seen.workers.get(name, ()),
            failed_starts=(*seen.failed_starts.get(name, ()), *(why for model, why in refused if model == name)),
            version=version,
            outdated=seen.outdated.get(name, ()),
            paused=bool(lanes) and all(lane.paused_until is not None for lane in lanes),
        )


def _removed(model: str, workers: tuple[WorkerView, ...]) -> ModelView:
    """A model that is not in the registry any more: it may have no worker, and nobody looks at its queue."""
    return ModelView(
        name=model,
        scaling=Scaling(max_workers=0),
        need=Need(SlotKind.CPU, 0),
        jobs_per_worker=1,
        load_timeout_s=0.0,
        waiting=0,
        held=0,
        oldest_wait_s=0.0,
        arrival_rate=0.0,
        service_s=None,
        workers=workers,
    )
