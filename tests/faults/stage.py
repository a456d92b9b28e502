"""One scenario: a real system small enough for seconds, load, faults, and the same checker as for chaos."""

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import breaks
import msgspec

from headrace import Client
from headrace_contracts.clock import SystemClock
from headrace_contracts.model import Batching, EngineKind, ModelSpec, Retry, Timeouts
from headrace_contracts.names import Lane
from headrace_contracts.tasks.registry import Task
from headrace_contracts.tasks.synthetic import SyntheticInput
from headrace_loadgen import evidence
from headrace_loadgen.chaos import until_drained, watching
from headrace_loadgen.check import Verdict, check
from headrace_loadgen.clients import Clients
from headrace_loadgen.collector import collect
from headrace_loadgen.evidence import Evidence, load_evidence
from headrace_loadgen.journal import Journal, read_journal
from headrace_loadgen.nemesis import Injector
from headrace_loadgen.observers import ResultsRecorder
from headrace_loadgen.orders import Order
from headrace_loadgen.records import AnyClientRecord, Fault, FaultKind, Plan
from headrace_loadgen.system.fleet import Worker
from headrace_loadgen.system.testbed import Layout, Testbed
from headrace_storage.topology import StorageLimits
from headrace_workers.engines.execution_journal import Entry, Moment

MODEL = "m"
# Short, so that a dead worker's job comes back while a test waits; long beside a loaded machine's pauses.
LEASE_S = 2.0
DEADLINE_S = 60.0
LAUNCHER = (sys.executable, str(Path(__file__).with_name("launcher.py")))


@dataclass(frozen=True)
class Setting:
    """What a scenario needs, beside what all have."""

    workers: int = 2
    come_later: bool = False
    """The workers are not there when the scenario begins."""
    brokers: int = 1
    batch: int = 1
    lease_s: float = LEASE_S
    max_attempts: int = 3
    step_s: float = 10.0
    broken: Sequence[str] = ()
    """Names from `breaks`."""
    start_slack_s: float = 0.5
    outage_delay_s: float = breaks.SHORT_OUTAGE_DELAY_S
    grace_s: float = 25.0
    limits: StorageLimits = field(default_factory=StorageLimits)
    isolated: bool = True
    """Whether no job kills an engine."""
    sync_always: bool = False


@dataclass(frozen=True)
class Judged:
    """How a scenario ended."""

    evidence: Evidence
    verdicts: list[Verdict]
    client: list[AnyClientRecord]

    @property
    def violated(self) -> dict[str, list[str]]:
        """Invariants that do not hold, with some of the problems."""
        return {
            v.invariant: [f"{x.job_id}: {x.problem}" for x in v.violations[:5]] for v in self.verdicts if v.violations
        }

    def compared(self, invariant: str) -> int:
        """How many things an invariant was held against."""
        return next(v.looked_at for v in self.verdicts if v.invariant == invariant)


class Stage:
    """A running system and what a scenario may do with it."""

    def __init__(self, bed: Testbed, clients: Clients, injector: Injector, recorder: ResultsRecorder) -> None:
        self.patience_s = DEADLINE_S
        self.bed = bed
        self.clients = clients
        self.injector = injector
        self.recorder = recorder
        self.clock = SystemClock()
        self._count = 0

    @property
    def workers(self) -> list[Worker]:
        return self.bed.fleet.workers

    async def start_workers(self) -> None:
        await self.bed.start_workers()
        await self.bed.until_ready()

    def order(
        self, job_id: str | None = None, ttl_s: float | None = None, lane: Lane = Lane.NORMAL, **asked: Any
    ) -> Order:
        """A job to be submitted."""
        self._count += 1
        job_id = job_id or f"job-{self._count}"
        given = msgspec.convert({"echo": job_id, **asked}, SyntheticInput)
        # Its handle is kept, so that a cancel is one request.
        return Order(job_id, MODEL, lane, given, ttl_s)

    async def submit(self, **fields: Any) -> Order:
        """Submit a job and wait for its receipt."""
        order = self.order(**fields)
        async with asyncio.timeout(DEADLINE_S):
            assert await self.clients.submit(order)
        return order

    async def submit_all(self, orders: Sequence[Order]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.clients.send(orders)

    async def inject(self, kind: FaultKind) -> Fault:
        """A fault of the nemesis, which must have happened."""
        async with asyncio.timeout(DEADLINE_S):
            fault = await self.injector.inject(kind)
        assert fault.happened, fault
        return fault

    def entries(self) -> list[Entry]:
        """What engines wrote so far."""
        return read_journal(self.bed.folder / evidence.ENGINE, Entry)

    async def until(self, happened: Callable[[], Any]) -> Any:
        """Wait for something."""
        async with asyncio.timeout(DEADLINE_S):
            while not (value := happened()):
                await asyncio.sleep(0.01)
        return value

    async def until_running(self, order: Order) -> Worker:
        """Wait until an engine has started a job, and find its worker."""
        [pid] = await self.until(
            lambda: [e.pid for e in self.entries() if e.echo == order.job_id and e.moment is Moment.START][:1]
        )
        return next(worker for worker in self.workers if pid in worker.engines())

    async def until_ended(self, *orders: Order) -> None:
        """Wait until jobs have results, but not for ever: the checker will say which have none."""
        try:
            async with asyncio.timeout(self.patience_s):
                await self.until(lambda: {order.job_id for order in orders} <= self.recorder.ended)
        except TimeoutError:
            self.patience_s = 0.0  # nor does anybody else wait for them

    def aim_at(self, worker: Worker) -> None:
        """Let the next faults of workers hit this one."""
        self.injector.worker = lambda: worker  # type: ignore[method-assign]


Play = Callable[[Stage], Any]
"""A scenario: what happens on the stage. Workers run when it begins, unless the setting has none."""


async def play(folder: Path, setting: Setting, scenario: Play, deadline_s: float = DEADLINE_S) -> Judged:
    """Set the stage, play, heal, wait for peace, and judge."""
    folder.mkdir(parents=True, exist_ok=True)
    clock = SystemClock()
    plan = Plan(
        seed=0,
        lease_s=setting.lease_s,
        max_attempts=setting.max_attempts,
        outage_delay_s=setting.outage_delay_s,
        start_slack_s=setting.start_slack_s,
        isolated_models=(MODEL,) if setting.isolated else (),
    )
    (folder / evidence.PLAN).write_bytes(msgspec.json.encode(plan))
    async with _staged(folder, setting) as stage:
        stage.patience_s = deadline_s
        await scenario(stage)
        bed, clients, recorder = stage.bed, stage.clients, stage.recorder
        clients.stop_trying()
        await clients.finish(DEADLINE_S)
        if not bed.fleet.workers:
            await stage.start_workers()
        drain_s = await until_drained(bed, clients, recorder, clock, stage.patience_s)
        await bed.fleet.drain()
        await recorder.catch_up()
        await collect(bed, clock, drain_s is not None, drain_s or deadline_s)
    found = load_evidence(folder)
    return Judged(found, check(found), found.client)


@contextlib.asynccontextmanager
async def _staged(folder: Path, setting: Setting) -> AsyncIterator[Stage]:
    rng, clock = random.Random(0), SystemClock()
    layout = Layout(
        (_spec(folder, setting),),
        setting.lease_s,
        workers=setting.workers,
        brokers=setting.brokers,
        sync_always=setting.sync_always,
        limits=msgspec.structs.replace(setting.limits, replicas=setting.brokers),
        command=LAUNCHER,
        environment={
            "HEADRACE_TEST_BREAKS": ",".join(name for name in setting.broken if name in breaks.IN_WORKERS),
            "HEADRACE_TEST_FOLDER": str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH")])),
        },
        grace_s=setting.grace_s,
    )
    async with contextlib.AsyncExitStack() as stack:
        for name in setting.broken:
            if name in breaks.IN_CLIENTS:
                stack.enter_context(breaks.IN_CLIENTS[name]())
        bed = await stack.enter_async_context(Testbed(layout, folder, rng))
        if not setting.come_later:
            await bed.start_workers()
            await bed.until_ready()
        recorder = await stack.enter_async_context(watching(bed, clock))
        client = await stack.enter_async_context(Client(bed.for_clients))
        clients = await stack.enter_async_context(Clients(client, folder, clock))
        journal = stack.enter_context(Journal[Fault](folder / evidence.FAULTS))
        yield Stage(bed, clients, Injector(bed, journal, rng, clock), recorder)


def _spec(folder: Path, setting: Setting) -> ModelSpec:
    return ModelSpec(
        MODEL,
        Task.SYNTHETIC,
        EngineKind.SYNTHETIC,
        options={"journal": str(folder / evidence.ENGINE)},
        retry=Retry(setting.max_attempts, base_delay_s=0.01, max_delay_s=0.05),
        timeouts=Timeouts(run_s=60, step_s=setting.step_s),
        batching=Batching(setting.batch),
    )
