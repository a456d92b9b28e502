"""From an empty system to the first result: a worker started at the publish, by exec and forked from a zygote.

Broker and zygote are up and the page cache is warm; no worker runs. Both ways, and for speech the model's bare
inference, take turns in a shuffled order, so that a machine that is busy with other things is busy for all of them.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from time import perf_counter

import msgspec
import psutil

from benchmarks.direct_process import DirectProcess, direct_process
from benchmarks.numbers import median
from benchmarks.rig import BenchmarkError, Options, Rig, open_rig
from benchmarks.start_command import StartCommandRow, measure_start_command
from headrace_contracts.clock import Clock
from headrace_contracts.file import File
from headrace_contracts.heartbeat import ColdStart
from headrace_contracts.model import ModelSpec
from headrace_contracts.tasks import SpeechToTextInput, TextGenerationInput, TextToImageInput
from headrace_contracts.tasks.registry import Task, TaskInput
from headrace_contracts.zygote import LAUNCHED_AT_VARIABLE
from headrace_local.models import FOLDER, find_model
from headrace_local.worker_process import worker_environment
from headrace_scaler.launchers.exec_spawner import ExecSpawner
from headrace_scaler.launchers.spawner import Spawner
from headrace_scaler.launchers.zygote import ZygoteSpawner
from headrace_scaler.launchers.zygote_process import ZygoteProcess
from headrace_storage.registry import add_model
from headrace_storage.workers import list_workers
from headrace_workers.weights import ensure_in_subprocess

ROUNDS = 7
QUICK_ROUNDS = 1
WARM_DEADLINE_S = 120.0
END_DEADLINE_S = 60.0

EXEC, FORKED, BARE = "plain start", "forked", "bare inference"


class Cold(msgspec.Struct, frozen=True):
    """One kind of work, and how fast its cold start is meant to be."""

    model: str
    task_input: TaskInput
    times: float = 0.0
    """Goal: so many times faster than a plain start; 0: none."""
    above_bare_s: float = 0.0
    """Goal: at most so many seconds more than the bare inference; 0: none."""


class ColdStartRow(msgspec.Struct, frozen=True):
    """One model started in one way: medians, in seconds from the publish to the stored result."""

    model: str
    way: str
    runs: int
    p50_s: float
    best_s: float
    worst_s: float
    to_plain: str
    goal: str


class PhaseRow(msgspec.Struct, frozen=True):
    """Where the time went: medians of what the workers say of themselves."""

    model: str
    way: str
    spawn_s: float
    connect_s: float
    engine_s: float
    import_s: float
    load_s: float
    warm_up_s: float
    first_result_s: float


class SharingRow(msgspec.Struct, frozen=True):
    """Memory of processes: what would be free without them."""

    what: str
    pss_mib: int


class Samples(msgspec.Struct):
    """Raw numbers of one model and one way."""

    model: str
    way: str
    total_s: list[float] = []
    phases: list[ColdStart] = []


class ColdStartReport(msgspec.Struct, frozen=True):
    """Rows are computed from `raw`."""

    rows: list[ColdStartRow]
    phases: list[PhaseRow]
    memory: list[SharingRow]
    ordered: list[StartCommandRow]
    raw: list[Samples]


def kinds() -> list[Cold]:
    """The three real models, each with one short job."""
    recording = FOLDER.parent / "data" / "speech" / "amiable-3s.wav"
    speech = File(inline=recording.read_bytes(), content_type="audio/wav")
    picture = TextToImageInput(
        "a red circle on a blue background", width=32, height=32, steps=10, guidance_scale=5.0, seed=1
    )
    return [
        Cold("tiny-shapes", picture, times=10.0),
        Cold("smollm2-135m", TextGenerationInput("Why is the sky blue?", max_tokens=8, temperature=0.0), times=4.0),
        Cold("whisper-tiny-en", SpeechToTextInput(speech, language="en", temperature=0.0), above_bare_s=0.4),
    ]


async def measure_cold_start(options: Options, clock: Clock) -> ColdStartReport:
    """All three models in all ways, taking turns."""
    cold = kinds()
    specs = [find_model(kind.model) for kind in cold]
    for spec in specs:
        await ensure_in_subprocess(spec, options.cache, options.say)
    raw = {(kind.model, way): Samples(kind.model, way) for kind in cold for way in (EXEC, FORKED)}
    async with open_rig(options, "cold-start", sync_always=True) as rig, contextlib.AsyncExitStack() as stack:
        for spec in specs:
            await add_model(rig.connection, spec)
        log = rig.folder / "zygote.log"
        zygote = await stack.enter_async_context(ZygoteProcess(specs, options.cache, dict(os.environ), log))
        async with asyncio.timeout(WARM_DEADLINE_S):
            await zygote.warm.wait()
        memory = [await _idle(zygote)]
        bare = await stack.enter_async_context(_bare(rig, specs))
        starter = _Starter(rig, zygote, await stack.enter_async_context(ExecSpawner()), clock)
        # Once each, unmeasured: what is not in the page cache yet is read now.
        for kind in cold:
            await starter.run(kind, EXEC)
        turns = [(kind, way) for kind in cold for way in (EXEC, FORKED)]
        for number in range(QUICK_ROUNDS if options.quick else ROUNDS):
            options.say(f"cold start, round {number + 1}")
            for kind, way in options.rng.sample(turns, len(turns)):
                total_s, phases = await starter.run(kind, way)
                raw[kind.model, way].total_s.append(total_s)
                raw[kind.model, way].phases.append(phases)
                if kind.model in bare:
                    samples = raw.setdefault((kind.model, BARE), Samples(kind.model, BARE))
                    samples.total_s.append(round((await bare[kind.model].run([kind.task_input])).total_s, 4))
        memory += await starter.sharing(next(kind for kind in cold if kind.model == "smollm2-135m"))
        ordered = await measure_start_command(options, rig, zygote)
    return cold_start_report(cold, list(raw.values()), memory, ordered)


def cold_start_report(
    cold: Sequence[Cold], raw: list[Samples], memory: list[SharingRow], ordered: list[StartCommandRow]
) -> ColdStartReport:
    """The report from the raw numbers."""
    middle = {(samples.model, samples.way): median(samples.total_s) for samples in raw}
    by_model = {kind.model: kind for kind in cold}
    rows = [_row(samples, by_model[samples.model], middle) for samples in raw]
    return ColdStartReport(rows, [_phases(samples) for samples in raw if samples.phases], memory, ordered, raw)


def _row(samples: Samples, kind: Cold, middle: Mapping[tuple[str, str], float]) -> ColdStartRow:
    p50_s = middle[kind.model, samples.way]
    faster = middle[kind.model, EXEC] / p50_s
    goal = ""
    if samples.way == FORKED and kind.times:
        goal = f">= {kind.times:g}x: {'met' if faster >= kind.times else 'missed'}"
    if samples.way == FORKED and kind.above_bare_s:
        above_s = p50_s - middle[kind.model, BARE]
        met = "met" if above_s <= kind.above_bare_s else "missed"
        goal = f"<= {kind.above_bare_s:g} s above bare: {above_s:.3f} s, {met}"
    return ColdStartRow(
        model=kind.model,
        way=samples.way,
        runs=len(samples.total_s),
        p50_s=round(p50_s, 3),
        best_s=round(min(samples.total_s), 3),
        worst_s=round(max(samples.total_s), 3),
        to_plain=f"{faster:.1f}x",
        goal=goal,
    )


def _phases(samples: Samples) -> PhaseRow:
    names = PhaseRow.__struct_fields__[2:]
    values = {name: round(median([getattr(phase, name) for phase in samples.phases]), 3) for name in names}
    return PhaseRow(samples.model, samples.way, **values)


class _Starter:
    """Starts a worker at the publish of a job, and ends it after the result."""

    def __init__(self, rig: Rig, zygote: ZygoteProcess, by_exec: Spawner, clock: Clock) -> None:
        self._rig = rig
        self._clock = clock
        self._ways: dict[str, Spawner] = {EXEC: by_exec, FORKED: ZygoteSpawner(zygote.path, by_exec)}

    async def run(self, kind: Cold, way: str) -> tuple[float, ColdStart]:
        """One cold start: seconds from the publish to the stored result, and its phases."""
        began = perf_counter()
        job = await self._rig.submit(kind.model, kind.task_input)
        pid = await self._spawn(kind.model, way)
        await self._rig.result(job)
        total_s = perf_counter() - began
        phases = await self._phases(pid, lambda start: start.first_result_s > 0)
        await _end(pid)
        if phases.forked != (way == FORKED):
            raise BenchmarkError(f"an engine of {kind.model} was not started as a {way}")
        return round(total_s, 4), phases

    async def sharing(self, kind: Cold) -> list[SharingRow]:
        """What a second worker of a model costs, the supervisor included."""
        rows = []
        for way in (EXEC, FORKED):
            pids = []
            for count in (1, 2):
                pids.append(await self._spawn(kind.model, way))
                await self._phases(pids[-1], lambda start: start.load_s > 0)
                for _ in range(count):
                    await self._rig.result(await self._rig.submit(kind.model, kind.task_input))
                rows.append(SharingRow(f"{count} x {kind.model}, {way}", _pss_mib(pids)))
            for pid in pids:
                await _end(pid)
        return rows

    async def _spawn(self, model: str, way: str) -> int:
        environment = {
            **worker_environment(self._rig.server.url, own_server=True),
            "HEADRACE_CACHE_DIR": str(self._rig.cache),
            "HEADRACE_ALLOW_UNSAFE_BROKER": "1",
            LAUNCHED_AT_VARIABLE: repr(self._clock.now().timestamp()),
        }
        log, status = self._rig.folder / f"{model}.log", self._rig.folder / f"{model}.status"
        return await self._ways[way].spawn(("--model", model), environment, log, status)

    async def _phases(self, pid: int, wanted: Callable[[ColdStart], bool]) -> ColdStart:
        """The phases of a worker's start, once it says that it has come so far."""
        async with asyncio.timeout(END_DEADLINE_S):
            while True:
                for worker in await list_workers(self._rig.connection):
                    [engine] = worker.engines or [None]
                    if worker.pid == pid and engine is not None and wanted(engine.cold_start):
                        return engine.cold_start
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def _bare(rig: Rig, specs: Sequence[ModelSpec]) -> AsyncIterator[dict[str, DirectProcess]]:
    """The speech model's own call, loaded and warm."""
    async with contextlib.AsyncExitStack() as stack:
        found = {}
        for spec in specs:
            if spec.task is Task.SPEECH_TO_TEXT:
                weights = await ensure_in_subprocess(spec, rig.cache, lambda _: None)
                assert weights is not None, "a real model has weights"
                environment = {**os.environ, "OMP_NUM_THREADS": str(spec.resources.threads), "HF_HUB_OFFLINE": "1"}
                process = await stack.enter_async_context(direct_process(spec, weights, environment, rig.folder))
                await process.run([kind.task_input for kind in kinds() if kind.model == spec.name])
                found[spec.name] = process
        yield found


async def _idle(zygote: ZygoteProcess) -> SharingRow:
    use = await zygote.memory()
    if use is None:
        raise BenchmarkError("the zygote does not answer")
    return SharingRow(f"zygote, idle ({', '.join(use.libraries)})", use.pss_bytes >> 20)


async def _end(pid: int) -> None:
    """End a worker in good order, whoever's child it is."""
    handle, gone, loop = os.pidfd_open(pid), asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(handle, gone.set)
    try:
        os.kill(pid, signal.SIGTERM)
        async with asyncio.timeout(END_DEADLINE_S):
            await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _pss_mib(pids: Sequence[int]) -> int:
    """Of workers and their engines, forked or not: those whose stderr only these supervisors read end with them."""
    members = []
    for pid in pids:
        worker = psutil.Process(pid)
        members += [worker, *worker.children(recursive=True)]
    known = {process.pid for process in members}
    parents = {process.ppid() for process in members if process.pid in pids}
    for parent in parents:
        siblings = psutil.Process(parent).children()
        members += [s for s in siblings if s.pid not in known and "headrace_workers.engine_process" in s.cmdline()]
    return sum(int(process.memory_full_info().pss) for process in members) >> 20
