"""How soon after a job's publish the scaler orders the worker for it, from an empty system, again and again."""

import asyncio
import time
from time import perf_counter

import msgspec

from benchmarks.numbers import median, percentile
from benchmarks.rig import BenchmarkError, Options, Rig
from headrace_contracts.clock import SystemClock
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.scaling import Scaling
from headrace_contracts.settings import NatsSettings, ScalerSettings, Settings
from headrace_contracts.tasks import SyntheticInput
from headrace_contracts.tasks.registry import Task
from headrace_local.worker_process import worker_environment
from headrace_scaler.launchers.exec_spawner import ExecSpawner
from headrace_scaler.launchers.local import LocalLauncher
from headrace_scaler.launchers.zygote import ZygoteSpawner
from headrace_scaler.launchers.zygote_process import ZygoteProcess
from headrace_scaler.service import Scaler
from headrace_storage.registry import add_model

RUNS = 40
QUICK_RUNS = 2
GOAL_S = 0.25
END_DEADLINE_S = 60.0

MODEL = ModelSpec(
    "start-command",
    Task.SYNTHETIC,
    EngineKind.SYNTHETIC,
    scaling=Scaling(max_workers=1, idle_timeout_s=0.0, scale_down_delay_s=0.0, cooldown_s=0.0),
)


class StartCommandRow(msgspec.Struct, frozen=True):
    """Milliseconds from the publish, over all runs."""

    what: str
    runs: int
    p50_ms: float
    p95_ms: float
    worst_ms: float
    goal: str


async def measure_start_command(options: Options, rig: Rig, zygote: ZygoteProcess) -> list[StartCommandRow]:
    """One worker after the other, each started by the real scaler for one job; then none is left."""
    runs = QUICK_RUNS if options.quick else RUNS
    settings = Settings(nats=NatsSettings(url=rig.server.url), scaler=ScalerSettings(cpu_slots=2, gpus=False))
    environment = {
        **worker_environment(rig.server.url, own_server=True),
        "HEADRACE_CACHE_DIR": str(rig.cache),
        "HEADRACE_ALLOW_UNSAFE_BROKER": "1",
    }
    await add_model(rig.connection, MODEL)
    clock = SystemClock()
    ordered_s, total_s = [], []
    async with ExecSpawner() as by_exec:
        spawner = ZygoteSpawner(zygote.path, by_exec)
        folder = rig.folder / "workers"
        async with LocalLauncher(folder, settings.scaler, spawner, environment, clock) as launcher:
            scaler = Scaler(settings, launcher, clock)
            running = asyncio.create_task(scaler.run())
            try:
                async with asyncio.timeout(END_DEADLINE_S):
                    await scaler.leading.wait()
                for number in range(runs):
                    if number % 10 == 0:
                        options.say(f"start command, run {number + 1} of {runs}")
                    ordered, total = await _run(rig, launcher)
                    ordered_s.append(ordered)
                    total_s.append(total)
            finally:
                running.cancel()
                await asyncio.wait([running])
    return [
        _row("start of the worker ordered", ordered_s, GOAL_S),
        _row("result of the job stored (synthetic engine)", total_s, None),
    ]


async def _run(rig: Rig, launcher: LocalLauncher) -> tuple[float, float]:
    """Seconds from the publish to the order, and to the result; returns when the worker is gone."""
    published_at, began = time.time(), perf_counter()
    job = await rig.submit(MODEL.name, SyntheticInput(echo="x"))
    await rig.result(job)
    total_s = perf_counter() - began
    orders = await launcher.running()
    if not orders:
        raise BenchmarkError("the job was run, and no worker was ordered for it")
    ordered_s = orders[-1].ordered_at - published_at
    async with asyncio.timeout(END_DEADLINE_S):
        while True:
            if not await launcher.running():
                return ordered_s, total_s
            await asyncio.sleep(0.02)


def _row(what: str, samples_s: list[float], goal_s: float | None) -> StartCommandRow:
    p95_s = percentile(samples_s, 0.95)
    goal = "" if goal_s is None else f"p95 <= {goal_s * 1e3:g} ms: {'met' if p95_s <= goal_s else 'missed'}"
    return StartCommandRow(
        what,
        len(samples_s),
        round(median(samples_s) * 1e3, 1),
        round(p95_s * 1e3, 1),
        round(max(samples_s) * 1e3, 1),
        goal,
    )
