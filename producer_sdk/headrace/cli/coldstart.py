"""`headrace coldstart`: one small job of a model, and where the time of the start that it caused went."""

import asyncio
import io
import wave
from collections.abc import Mapping
from uuid import uuid4

import click

from headrace.cli.failures import FAILED, LATER
from headrace.cli.output import show_table
from headrace.cli.session import with_client
from headrace.client import Client
from headrace.results import JobResult
from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import ResultTimeout
from headrace_contracts.heartbeat import ColdStart, EngineState, EngineStatus
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import Bucket
from headrace_contracts.result import Status
from headrace_contracts.tasks.registry import Task
from headrace_storage.alerts import last_cold_start
from headrace_storage.buckets import bucket_entries
from headrace_storage.leadership import LeaseName

# A heartbeat follows a job's end by some hundredths of a second; from a worker that died none follows.
HEARTBEAT_S = 3.0
LOOK_EVERY_S = 0.05
# Past what the model itself is given to load: for a machine that is busy with others.
PATIENCE_S = 60.0

_PHASES = {
    "spawn_s": "worker process started",
    "connect_s": "broker found, model read",
    "weights_s": "weights found",
    "engine_s": "engine process started",
    "import_s": "libraries imported",
    "load_s": "weights loaded",
    "warm_up_s": "model run once",
    "first_result_s": "ready until the job's end",
}


@click.command()
@click.argument("model")
@click.option(
    "--runs", type=click.IntRange(min=1), default=1, show_default=True, help="So many, each from zero workers."
)
@click.pass_context
def coldstart(ctx: click.Context, model: str, runs: int) -> None:
    """Run one small job, and show where the time of its cold start went.

    A model that has a ready worker is warm: its job is run, and there is no start to measure. Several runs wait in
    between until the scaler has stopped the workers.
    """

    async def call(client: Client) -> int:
        spec = await client.model(model)
        if runs > 1 and spec.scaling.min_workers:
            count = spec.scaling.min_workers
            raise click.UsageError(
                f"{model} has `min_workers = {count}` and is never cold: set it to 0, or leave --runs"
            )
        for number in range(runs):
            if number:
                await _until_cold(client, spec)
            code = await _measure(client, spec)
            if code:
                return code
        return 0

    ctx.exit(with_client(call))


async def _measure(client: Client, spec: ModelSpec) -> int:
    engines = await _engines(client, spec.name)
    warm = sum(engine.state is EngineState.READY for engine in engines.values())
    if not engines and not await _scaler(client):
        click.echo(
            f"no worker serves {spec.name}, and no scaler runs that would start one: `headrace scaler`, "
            f"or `headrace worker --model {spec.name}`",
            err=True,
        )
        return LATER
    clock = SystemClock()
    began = clock.monotonic()
    job_id = f"coldstart-{uuid4().hex[:12]}"
    made_up = _small_input(spec.task)
    job = await client.submit(
        spec.name, lane="normal", job_id=job_id, timeout_s=None, ttl_s=None, metadata=None, traceparent=None, **made_up
    )
    try:
        result = await job.result(timeout_s=spec.timeouts.load_s + PATIENCE_S)
    except ResultTimeout:
        click.echo(f"no result: `headrace status {job.id}` tells where the job is; it is canceled now", err=True)
        await job.cancel()
        return LATER
    total_s = clock.monotonic() - began
    if result.status is not Status.SUCCEEDED:
        click.echo(f"the job ended as {result.status}: {result.error.message if result.error else ''}", err=True)
        return FAILED
    if warm:
        _say_warm(spec, warm, total_s)
        return 0
    await _show(client, spec, result, total_s)
    return 0


async def _show(client: Client, spec: ModelSpec, result: JobResult, total_s: float) -> None:
    start = await _start_of(client, spec.name, result.worker)
    if start is None:
        click.echo(f"{total_s:.3f} s in all; worker {result.worker} is gone and told nobody of its start", err=True)
        return
    told = await last_cold_start(client.connection, spec.name)
    decide_s = told.decide_s if told is not None and told.worker == result.worker else 0.0
    parts = {"scaler decided": decide_s} if decide_s else {}
    parts |= {label: getattr(start, name) for name, label in _PHASES.items()}
    parts["the rest: ordering, taking, storing"] = max(0.0, total_s - sum(parts.values()))
    rows = [(label, f"{spent_s:.3f}", f"{spent_s / total_s:.0%}") for label, spent_s in parts.items()]
    rows.append(("job, submit to result", f"{total_s:.3f}", ""))
    show_table(("PHASE", "SECONDS", "SHARE"), rows)
    click.echo(
        f"engine {'forked from a warm parent' if start.forked else 'started by exec'} on {result.worker}", err=True
    )


async def _start_of(client: Client, model: str, worker: str | None) -> ColdStart | None:
    """The newest start of the worker that ran the job, once its first result is in it."""
    start: ColdStart | None = None
    try:
        async with asyncio.timeout(HEARTBEAT_S):
            while start is None or not start.first_result_s:
                engine = (await _engines(client, model)).get(worker or "")
                start = start if engine is None else engine.cold_start
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        if start is None:
            told = await last_cold_start(client.connection, model)
            start = told.phases if told is not None and told.worker == worker else None
    return start


async def _until_cold(client: Client, spec: ModelSpec) -> None:
    scaling = spec.scaling
    limit_s = scaling.idle_timeout_s + scaling.scale_down_delay_s + scaling.cooldown_s + PATIENCE_S
    click.echo(f"waiting until no worker serves {spec.name} (`idle_timeout_s` is {scaling.idle_timeout_s:g})", err=True)
    try:
        async with asyncio.timeout(limit_s):
            engines = await _engines(client, spec.name)
            while engines:
                await asyncio.sleep(LOOK_EVERY_S)
                engines = await _engines(client, spec.name)
    except TimeoutError as error:
        raise click.ClickException(
            f"{spec.name} still has a worker after {limit_s:g} s: a scaler does not stop one that was started by hand"
        ) from error


async def _engines(client: Client, model: str) -> Mapping[str, EngineStatus]:
    """The engines of a model, by worker."""
    workers = await client.workers()
    return {worker.id: engine for worker in workers for engine in worker.engines if engine.model == model}


async def _scaler(client: Client) -> bool:
    leases = await bucket_entries(client.connection, Bucket.LEASES)
    return any(name == LeaseName.SCALER for name, _ in leases)


def _say_warm(spec: ModelSpec, warm: int, total_s: float) -> None:
    workers = "a worker was ready" if warm == 1 else f"{warm} workers were ready"
    click.echo(f"{spec.name} was warm: {workers}; the job took {total_s:.3f} s, and there was no start to measure")
    if spec.scaling.min_workers:
        click.echo(f"it has `min_workers = {spec.scaling.min_workers}`: set it to 0 to see it start", err=True)
    else:
        idle_s = spec.scaling.idle_timeout_s
        click.echo(
            f"a scaler stops its workers {idle_s:g} s after the last job; others by SIGTERM. Then run this again",
            err=True,
        )


def _small_input(task: Task) -> dict[str, object]:
    """A valid job of a task that is over soon; what it leaves out is the model's own default."""
    match task:
        case Task.TEXT_TO_IMAGE:
            return {"prompt": "a red circle on a blue background"}
        case Task.SPEECH_TO_TEXT:
            return {"audio": _silence()}
        case Task.TEXT_GENERATION:
            return {"prompt": "Say hello.", "max_tokens": 8}
        case Task.SYNTHETIC:
            return {}


def _silence() -> bytes:
    """One second of it, as WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(16_000)
        recording.writeframes(bytes(32_000))
    return file.getvalue()
