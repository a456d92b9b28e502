"""How long the system needs to get over what can happen to it: one fault at a time, and what follows is timed.

All times are taken by this process, or by the broker and the engine with the same clock: one machine has one.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import datetime
from time import perf_counter

import msgspec

from benchmarks.numbers import percentile
from benchmarks.rig import Options, Rig, engines_of, open_rig
from headrace import Client
from headrace_contracts.clock import Clock
from headrace_contracts.event import AnyEvent, Retrying, Started
from headrace_contracts.model import EngineKind, ModelSpec, Retry, Timeouts
from headrace_contracts.settings import NatsSettings, Settings
from headrace_contracts.tasks.registry import Task
from headrace_contracts.tasks.synthetic import Behaviour, SyntheticInput
from headrace_storage.events import follow_events
from headrace_storage.jobs import Receipt

ROUNDS = 10
QUICK_ROUNDS = 2
STEP_S = 1.0
"""Silence after which the hung engine counts as hung."""
LEASE_S = 5.0
"""The dead worker's lease: shorter than the default of 30 s, so that the rounds take minutes."""
DEADLINE_S = 120.0


class RecoveryRow(msgspec.Struct, frozen=True):
    """One fault."""

    what: str
    goal: str
    p50_s: float
    worst_s: float
    rounds: int


Measure = Callable[[], Awaitable[float]]


async def measure_recovery(options: Options, clock: Clock) -> list[RecoveryRow]:
    """Every fault in turn, round after round, so that a slow minute of the machine meets all of them."""
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    async with open_rig(options, "recovery", sync_always=True) as rig:
        settings = Settings(nats=NatsSettings(url=rig.server.url))
        async with Client(settings) as client:
            faults = _Faults(rig, client, clock)
            measures: list[tuple[str, str, Measure]] = [
                ("engine killed -> the next job starts", "<= 2 s", faults.engine_killed),
                ("engine hangs -> job given up, beyond step_s", "<= 1 s", faults.engine_hangs),
                ("cancel of a queued job acknowledged", "<= 0.05 s", faults.cancel_queued),
                ("cancel of a running job -> the next one starts", "<= 1 s", faults.cancel_running),
                ("broker killed and up again -> first job starts", "<= 3 s", faults.broker_restarts),
                ("worker killed -> job starts elsewhere, beyond the lease", "<= 5 s", faults.worker_killed),
            ]
            took_s: dict[str, list[float]] = {what: [] for what, _, _ in measures}
            for number in range(rounds):
                options.say(f"recovery, round {number + 1} of {rounds}")
                for what, _, measure in measures:
                    took_s[what].append(await measure())
    return [
        RecoveryRow(what, goal, round(percentile(took_s[what], 0.5), 4), round(max(took_s[what]), 4), rounds)
        for what, goal, _ in measures
    ]


class _Faults:
    """One fault a method; each gives the seconds it took to get over it."""

    def __init__(self, rig: Rig, client: Client, clock: Clock) -> None:
        self._rig = rig
        self._client = client
        self._clock = clock
        self._models = 0

    async def engine_killed(self) -> float:
        spec = self._model()
        async with self._rig.worker([spec]) as worker:
            assert worker.pid is not None
            [engine] = engines_of(worker.pid)
            began = self._clock.now()
            os.kill(engine.pid, signal.SIGKILL)
            return _seconds(began, await self._started(spec))

    async def engine_hangs(self) -> float:
        spec = self._model(timeouts=Timeouts(step_s=STEP_S), retry=Retry(max_attempts=2, base_delay_s=0.01))
        async with self._rig.worker([spec]):
            job = await self._rig.submit(spec.name, SyntheticInput(behaviour=Behaviour.HANG))
            began = await self._event(job, Started)
            return _seconds(began.at, (await self._event(job, Retrying)).at) - STEP_S

    async def cancel_queued(self) -> float:
        spec = self._model()
        async with self._rig.worker([spec]):
            busy = await self._running(spec)
            job = await self._client.submit(spec.name)
            began = perf_counter()
            answer = await job.cancel()
            took_s = perf_counter() - began
            assert answer == "canceled", answer
            await self._client.cancel(spec.name, busy.job_id)
            return took_s

    async def cancel_running(self) -> float:
        spec = self._model()
        async with self._rig.worker([spec]):
            busy = await self._running(spec)
            following = await self._rig.submit(spec.name, SyntheticInput())
            began = self._clock.now()
            await self._client.cancel(spec.name, busy.job_id)
            return _seconds(began, (await self._rig.result(following)).started_at)

    async def broker_restarts(self) -> float:
        spec = self._model()
        async with self._rig.worker([spec]):
            await self._rig.server.kill()
            await self._rig.server.start()
            began = self._clock.now()
            return _seconds(began, await self._started(spec))

    async def worker_killed(self) -> float:
        spec = self._model()
        async with self._rig.worker([spec], lease_s=LEASE_S) as first:
            job = await self._running(spec, steps=40)
            async with self._rig.worker([spec], lease_s=LEASE_S, name=f"{spec.name}-second"):
                began = self._clock.now()
                first.kill_now()
                return _seconds(began, (await self._rig.result(job)).started_at) - LEASE_S

    def _model(self, timeouts: Timeouts = Timeouts(), retry: Retry = Retry()) -> ModelSpec:  # noqa: B008 - frozen
        self._models += 1
        return ModelSpec(
            f"recovery-{self._models}", Task.SYNTHETIC, EngineKind.SYNTHETIC, timeouts=timeouts, retry=retry
        )

    async def _started(self, spec: ModelSpec) -> datetime | None:
        """When a job that is submitted now begins."""
        job = await self._rig.submit(spec.name, SyntheticInput())
        return (await self._rig.result(job)).started_at

    async def _running(self, spec: ModelSpec, steps: int = 100) -> Receipt:
        """A job of `steps` short steps, once it runs."""
        job = await self._rig.submit(spec.name, SyntheticInput(steps=steps, step_s=0.1))
        await self._event(job, Started)
        return job

    async def _event(self, job: Receipt, kind: type[AnyEvent]) -> AnyEvent:
        """The first event of a kind."""
        async with asyncio.timeout(DEADLINE_S):
            events = follow_events(self._rig.connection, job.tenant, job.model, job.job_id)
            return await anext(event async for event in events if isinstance(event, kind))


def _seconds(began: datetime, ended: datetime | None) -> float:
    assert ended is not None, "it never began"
    return (ended - began).total_seconds()
