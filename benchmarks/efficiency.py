"""How much of a library's own throughput is left when its model runs behind the queue.

Worker and direct call are two processes with the same environment, both loaded, that take turns with the same inputs
in a shuffled order. Their outputs are compared: a ratio of two different computations would mean nothing.
"""

import asyncio
import contextlib
import io
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import numpy as np
from PIL import Image

from benchmarks.direct import pixels_hash
from benchmarks.direct_process import direct_process
from benchmarks.memory import MemoryRow, peaks_of
from benchmarks.numbers import median
from benchmarks.rig import Options, Rig, engines_of, open_rig
from benchmarks.workload import Workload, workloads
from headrace_contracts.clock import Clock
from headrace_contracts.model import ModelSpec
from headrace_contracts.result import Result
from headrace_contracts.settings import Settings
from headrace_contracts.tasks import SpeechToTextOutput, TextGenerationOutput
from headrace_contracts.tasks.registry import Task
from headrace_local.worker_process import WorkerProcess
from headrace_storage.blobs import open_blobs
from headrace_workers.weights import ensure_in_subprocess

GOAL = 0.97
"""Throughput of a worker to that of the direct call, one job at a time."""

ROUNDS = 5
QUICK_ROUNDS = 1


class Timed(msgspec.Struct, frozen=True):
    """Some inputs were run by one side."""

    total_s: float
    outputs: list[str]


Side = Callable[[], Awaitable[Timed]]


class EfficiencyRow(msgspec.Struct, frozen=True):
    """One model: jobs per second of median rounds."""

    model: str
    device: str
    batch: int
    jobs: int
    rounds: int
    worker_jobs_per_s: float
    direct_jobs_per_s: float
    ratio: float
    same_outputs: str
    """Of all outputs, how many were the direct call's."""
    goal: str


class Rounds(msgspec.Struct):
    """Raw numbers of one model: seconds per round, one entry each."""

    model: str
    device: str
    batch: int
    jobs: int
    worker_s: list[float] = []
    direct_s: list[float] = []
    same: int = 0
    """Outputs of the worker that were the direct call's."""


class EfficiencyReport(msgspec.Struct, frozen=True):
    """Rows are computed from `raw`."""

    rows: list[EfficiencyRow]
    raw: list[Rounds]


async def measure_efficiency(options: Options, clock: Clock) -> tuple[EfficiencyReport, list[MemoryRow]]:
    """All three models, one after the other; the report, and the peak memory of the workers."""
    raw: list[Rounds] = []
    memory: list[MemoryRow] = []
    async with open_rig(options, "efficiency", sync_always=True) as rig:
        for workload in workloads(quick=options.quick):
            rounds, peaks = await _measure_model(rig, workload, options, clock)
            raw += rounds
            memory += peaks
    return EfficiencyReport([efficiency_row(rounds) for rounds in raw], raw), memory


def efficiency_row(rounds: Rounds) -> EfficiencyRow:
    """The row from the raw numbers."""
    ratio = median(rounds.direct_s) / median(rounds.worker_s)
    return EfficiencyRow(
        model=rounds.model,
        device=rounds.device,
        batch=rounds.batch,
        jobs=rounds.jobs,
        rounds=len(rounds.worker_s),
        worker_jobs_per_s=round(rounds.jobs / median(rounds.worker_s), 3),
        direct_jobs_per_s=round(rounds.jobs / median(rounds.direct_s), 3),
        ratio=round(ratio, 3),
        same_outputs=f"{rounds.same}/{rounds.jobs * len(rounds.worker_s)}",
        goal=f">= {GOAL}: {'met' if ratio >= GOAL else 'missed'}" if rounds.batch == 1 else "",
    )


async def _measure_model(
    rig: Rig, workload: Workload, options: Options, clock: Clock
) -> tuple[list[Rounds], list[MemoryRow]]:
    specs = [spec for spec in (workload.spec, workload.batched) if spec is not None]
    options.say(f"efficiency: loading {workload.spec.name}")
    weights = await ensure_in_subprocess(workload.spec, rig.cache, options.say)
    assert weights is not None, "a real model has weights"
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(rig.worker([spec])) for spec in specs]
        direct = await stack.enter_async_context(
            direct_process(workload.spec, weights, _engine_environment(workers[0]), rig.folder / workload.spec.name)
        )
        device = (await direct.run(workload.inputs[:1])).device
        measured = [Rounds(spec.name, device, spec.batching.max_size, len(workload.inputs)) for spec in specs]
        for spec in specs:
            await _through_worker(rig, spec, workload, clock)  # the same warm-up for both

        async def run_direct() -> Timed:
            answer = await direct.run(workload.inputs)
            return Timed(answer.total_s, answer.outputs)

        await run_direct()
        count = QUICK_ROUNDS if options.quick else ROUNDS
        for number in range(count):
            options.say(f"efficiency: {workload.spec.name}, round {number + 1} of {count}")
            sides: dict[str, Side] = {
                spec.name: partial(_through_worker, rig, spec, workload, clock) for spec in specs
            } | {"direct": run_direct}
            timed = {name: await sides[name]() for name in options.rng.sample(list(sides), len(sides))}
            for rounds in measured:
                _add(rounds, timed[rounds.model], timed["direct"])
        peaks = [row for spec, worker in zip(specs, workers, strict=True) for row in _peaks(spec, worker)]
    return measured, peaks


def _add(rounds: Rounds, worker: Timed, direct: Timed) -> None:
    rounds.worker_s.append(round(worker.total_s, 6))
    rounds.direct_s.append(round(direct.total_s, 6))
    rounds.same += sum(ours == theirs for ours, theirs in zip(worker.outputs, direct.outputs, strict=True))


async def _through_worker(rig: Rig, spec: ModelSpec, workload: Workload, clock: Clock) -> Timed:
    """Submit all inputs at once: seconds from the start of the first in the engine to the last stored result."""
    jobs = [await rig.submit(spec.name, task_input) for task_input in workload.inputs]
    results = await asyncio.gather(*(rig.result(job) for job in jobs))
    ended_at = clock.now()
    began_at = min(result.started_at for result in results if result.started_at is not None)
    outputs = [await _output(rig, spec.task, result) for result in results]
    return Timed((ended_at - began_at).total_seconds(), outputs)


async def _output(rig: Rig, task: Task, result: Result) -> str:
    """What a direct call would say of the same output."""
    match task:
        case Task.TEXT_TO_IMAGE:
            [artifact] = result.artifacts
            path = rig.folder / f"{result.id}.png"
            async with open_blobs(Settings(), rig.connection.nc) as blobs:
                await blobs.get_to(artifact.blob, path, size_bytes=artifact.size_bytes, sha256=artifact.sha256)
            with Image.open(io.BytesIO(path.read_bytes())) as picture:
                return pixels_hash(np.asarray(picture.convert("RGB")))
        case Task.SPEECH_TO_TEXT:
            return msgspec.json.decode(result.output, type=SpeechToTextOutput).text.strip()
        case Task.TEXT_GENERATION:
            return msgspec.json.decode(result.output, type=TextGenerationOutput).text.strip()
        case Task.SYNTHETIC:
            raise AssertionError("there is no library to call directly")


def _engine_environment(worker: WorkerProcess) -> dict[str, str]:
    """The environment of a worker's engine as the system has it: threads, allocator and all."""
    assert worker.pid is not None
    [engine] = engines_of(worker.pid)
    environment: dict[str, str] = engine.environ()
    return environment


def _peaks(spec: ModelSpec, worker: WorkerProcess) -> list[MemoryRow]:
    assert worker.pid is not None
    return peaks_of(spec.name, worker.pid)
