"""What the queue costs: latency and throughput of no-op jobs, beside a bare nats-py worker, with and without sync.

All combinations run interleaved on the same machine in one shuffled schedule, so that its noise meets all alike.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import perf_counter

import msgspec
from nats.aio.msg import Msg

from benchmarks.latency import Samples, measure_latency
from benchmarks.memory import MemoryRow, peaks_of
from benchmarks.numbers import median, percentile
from benchmarks.rig import RESULT_DEADLINE_S, Options, Rig, open_rig
from headrace_contracts.clock import Clock
from headrace_contracts.model import Batching, EngineKind, ModelSpec
from headrace_contracts.names import DEFAULT_TENANT
from headrace_contracts.tasks.registry import Task
from headrace_contracts.tasks.synthetic import SyntheticInput
from headrace_local.child import Child
from headrace_storage.registry import add_model

SLOTS = (1, 8)
SYSTEMS = ("headrace", "bare")
GOALS_MS = {"p50": 3.0, "p99": 20.0}
"""Of submit to engine start through Headrace on an idle worker."""


class LatencyRow(msgspec.Struct, frozen=True):
    """One measure of one system: milliseconds."""

    measure: str
    system: str
    sync: str
    jobs: int
    p50_ms: float
    p99_ms: float
    p50_to_bare: float
    goal: str = ""


class ThroughputRow(msgspec.Struct, frozen=True):
    """No-op jobs submitted at once."""

    system: str
    sync: str
    slots: int
    jobs_per_s: float
    to_bare: float


class Cell(msgspec.Struct):
    """One system on one broker, with its raw numbers."""

    system: str
    sync: str
    latency: Samples = msgspec.field(default_factory=Samples)
    burst_s: dict[int, list[float]] = {}
    """Slots to seconds per burst of `burst_jobs`."""


class QueueReport(msgspec.Struct, frozen=True):
    """Rows are computed from `raw`."""

    latency: list[LatencyRow]
    throughput: list[ThroughputRow]
    burst_jobs: int
    raw: list[Cell]


@dataclass(frozen=True)
class Plan:
    """How many."""

    rounds: int
    jobs_per_round: int
    bursts: int
    burst_jobs: int
    warm_up: int

    @classmethod
    def of(cls, options: Options) -> "Plan":
        """At least 500 jobs a cell, unless it has to be quick."""
        return cls(2, 5, 1, 20, 5) if options.quick else cls(10, 50, 5, 200, 50)


async def measure_queue(options: Options, clock: Clock) -> tuple[QueueReport, list[MemoryRow]]:
    """Run the whole schedule; the report, and the peak memory of the workers."""
    plan = Plan.of(options)
    cells = [Cell(system, sync) for sync in ("always", "off") for system in SYSTEMS]
    async with contextlib.AsyncExitStack() as stack:
        rigs, memory = {}, []
        for sync in ("always", "off"):
            options.say(f"queue: starting a broker (sync {sync}), a worker and the bare worker")
            rig = await stack.enter_async_context(open_rig(options, f"queue-{sync}", sync_always=sync == "always"))
            worker = await stack.enter_async_context(rig.worker([_spec("headrace", slots) for slots in SLOTS]))
            await stack.enter_async_context(_bare_worker(rig))
            rigs[sync] = rig
            assert worker.pid is not None
            memory.append((f"no-op jobs, sync {sync}", worker.pid))
        await _warm_up(rigs, cells, plan, options, clock)
        for number in range(plan.rounds):
            options.say(f"queue: one job at a time, round {number + 1} of {plan.rounds}")
            for cell in options.rng.sample(cells, len(cells)):
                model = _model(cell.system, SLOTS[0])
                await measure_latency(rigs[cell.sync], model, plan.jobs_per_round, cell.latency, options, clock)
        bursts = [(cell, slots) for cell in cells for slots in SLOTS]
        for number in range(plan.bursts):
            options.say(f"queue: {plan.burst_jobs} jobs at once, round {number + 1} of {plan.bursts}")
            for cell, slots in options.rng.sample(bursts, len(bursts)):
                took_s = await _burst(rigs[cell.sync], _model(cell.system, slots), plan.burst_jobs)
                cell.burst_s.setdefault(slots, []).append(round(took_s, 6))
        rows = [row for label, pid in memory for row in peaks_of(label, pid)]
    return QueueReport(latency_rows(cells), throughput_rows(cells, plan.burst_jobs), plan.burst_jobs, cells), rows


def latency_rows(cells: list[Cell]) -> list[LatencyRow]:
    """The table from the raw numbers: the three measures users feel, then where Headrace's time to the start goes."""
    measures = {
        "submit to engine start": "start_s",
        "submit to stored result": "result_s",
        "publish to receipt": "receipt_s",
        "  submit to stored": "stored_s",
        "  stored to taken by the worker": "taken_s",
        "  taken to engine start": "begun_s",
    }
    rows = []
    for measure, field in measures.items():
        for cell in cells:
            samples: list[float] = getattr(cell.latency, field)
            bare: list[float] = getattr(_peer(cell, cells).latency, field)
            p50, p99 = percentile(samples, 0.5) * 1e3, percentile(samples, 0.99) * 1e3
            has_goal = field == "start_s" and cell.system == "headrace"
            rows.append(
                LatencyRow(
                    measure=measure,
                    system=cell.system,
                    sync=cell.sync,
                    jobs=len(samples),
                    p50_ms=round(p50, 3),
                    p99_ms=round(p99, 3),
                    p50_to_bare=round(p50 / (percentile(bare, 0.5) * 1e3), 2),
                    goal=_goal(p50, p99) if has_goal else "",
                )
            )
    return rows


def throughput_rows(cells: list[Cell], burst_jobs: int) -> list[ThroughputRow]:
    """Jobs per second of the median burst."""
    return [
        ThroughputRow(
            system=cell.system,
            sync=cell.sync,
            slots=slots,
            jobs_per_s=round(burst_jobs / median(cell.burst_s[slots]), 1),
            to_bare=round(median(_peer(cell, cells).burst_s[slots]) / median(cell.burst_s[slots]), 3),
        )
        for slots in SLOTS
        for cell in cells
    ]


def _goal(p50_ms: float, p99_ms: float) -> str:
    met = p50_ms <= GOALS_MS["p50"] and p99_ms <= GOALS_MS["p99"]
    return f"p50 <= {GOALS_MS['p50']:g}, p99 <= {GOALS_MS['p99']:g}: {'met' if met else 'missed'}"


def _peer(cell: Cell, cells: list[Cell]) -> Cell:
    """The bare worker on the same broker."""
    return next(other for other in cells if other.system == "bare" and other.sync == cell.sync)


async def _warm_up(rigs: dict[str, Rig], cells: list[Cell], plan: Plan, options: Options, clock: Clock) -> None:
    for cell in cells:
        for slots in SLOTS:
            rig, model = rigs[cell.sync], _model(cell.system, slots)
            await measure_latency(rig, model, plan.warm_up, Samples(), options, clock)


async def _burst(rig: Rig, model: str, jobs: int) -> float:
    """Submit `jobs` no-ops at once; seconds from the first publish until the client has seen every result.

    One subscription sees them all: a wait for each job would make the client the busiest process of the machine.
    """
    seen = asyncio.Semaphore(0)

    async def on_message(_: Msg) -> None:
        seen.release()

    subscription = await rig.connection.nc.subscribe(f"results.{DEFAULT_TENANT}.{model}.*", cb=on_message)
    began = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        submitted = [tasks.create_task(rig.submit(model, SyntheticInput())) for _ in range(jobs)]
    async with asyncio.timeout(RESULT_DEADLINE_S):
        for _ in range(jobs):
            await seen.acquire()
    took_s = perf_counter() - began
    await subscription.unsubscribe()
    for job in submitted:
        await rig.result(job.result())
    return took_s


@contextlib.asynccontextmanager
async def _bare_worker(rig: Rig) -> AsyncIterator[None]:
    # In the registry like any model, so that its jobs are not taken for jobs of nobody; no worker of ours serves it.
    for slots in SLOTS:
        await add_model(rig.connection, _spec("bare", slots))
    loops = [f"{_model('bare', slots)}={slots}" for slots in SLOTS]
    command = [sys.executable, "-m", "benchmarks.bare_worker", rig.server.url, *loops]
    child = await Child.start(command, rig.folder / "bare.log", signal.SIGKILL)
    try:
        yield
    finally:
        await child.kill()


def _model(system: str, slots: int) -> str:
    return f"{system}-{slots}"


def _spec(system: str, slots: int) -> ModelSpec:
    return ModelSpec(_model(system, slots), Task.SYNTHETIC, EngineKind.SYNTHETIC, batching=Batching(max_size=slots))
