"""`headrace demo`: one real job of each kind through the whole system, by way of the SDK."""

from collections.abc import Awaitable
from pathlib import Path

from headrace import Client, Handle, JobResult
from headrace_contracts.errors import HeadraceError
from headrace_contracts.event import Progress
from headrace_contracts.result import Status
from headrace_local.demo_view import DemoView, Row
from headrace_local.system import LocalSystem

MODELS = ("tiny-shapes", "whisper-tiny-en", "smollm2-135m")

PROMPT = "a red circle on a blue background"
RECORDING = Path(__file__).parent / "data" / "speech" / "dashwood-7s.wav"
SPOKEN = (
    "and mister john dashwood had then leisure to consider "
    "how much there might be prudently in his power to do for them"
)
QUESTION = "What is the capital of France?"

# The pictures are 32 pixels wide: enlarged so much, one can see them.
ENLARGE = 8
# Far beyond what any of the three jobs takes on a slow machine.
JOB_DEADLINE_S = 600.0


class DemoError(HeadraceError):
    """The demo cannot run; the message says why."""


async def run_demo(system: LocalSystem, out: Path, view: DemoView) -> bool:
    """Start the system, run the three jobs, show what came of them; whether all succeeded."""
    view.say(
        "Starting nats-server and a worker with three models (the first time, weights are converted: a minute) ..."
    )
    async with system:
        unhealthy = await system.wait_settled()
        if unhealthy:
            why = "; ".join(f"{engine.model}: {engine.detail}" for engine in unhealthy)
            raise DemoError(f"not all models can be loaded: {why} (log: {system.folder / 'worker.log'})")
        async with Client(system.settings) as client:
            rows = [
                await _row(view, MODELS[0], _image(client, view, out)),
                await _row(view, MODELS[1], _speech(client, view)),
                await _row(view, MODELS[2], _chat(client, view)),
            ]
        view.table(rows)
        view.say("Stopping ...")
    return all(row.status == Status.SUCCEEDED for row in rows)


async def _row(view: DemoView, model: str, job: Awaitable[tuple[JobResult, str]]) -> Row:
    """Run one job of the demo; what it raises is shown, and the others go on."""
    try:
        result, artifact = await job
    except (HeadraceError, OSError) as error:
        view.say(f"  failed: {error}")
        return Row(model, "failed")
    return Row(model, result.status, result.timings, result.attempts, artifact)


async def _image(client: Client, view: DemoView, out: Path) -> tuple[JobResult, str]:
    view.heading(MODELS[0], f"draw {PROMPT!r}")
    job = await client.submit(MODELS[0], prompt=PROMPT, seed=7)
    with view.steps() as steps:
        async for event in job.events():
            if isinstance(event, Progress):
                steps.done(event.step, event.total)
    result = await _succeeded(job)
    path = await result.artifacts[0].save(out)
    large = _enlarged(path)
    view.say(f"  {path} (32x32 pixels), enlarged: {large}")
    return result, str(path)


async def _speech(client: Client, view: DemoView) -> tuple[JobResult, str]:
    view.heading(MODELS[1], f"write down {RECORDING.name}")
    view.say(f"  spoken:  {SPOKEN}")
    job = await client.submit(MODELS[1], audio=RECORDING)
    result = await _succeeded(job)
    view.say(f"  written: {(result.text or '').strip()}")
    return result, _text(result)


async def _chat(client: Client, view: DemoView) -> tuple[JobResult, str]:
    view.heading(MODELS[2], QUESTION)
    job = await client.submit(MODELS[2], prompt=QUESTION, temperature=0.0, max_tokens=48)
    view.piece("  ")
    async for piece in job.stream():
        view.piece(piece)
    view.say("")
    result = await _succeeded(job)
    return result, _text(result)


def _text(result: JobResult) -> str:
    return f"text, {len(result.text or '')} characters"


async def _succeeded(job: Handle) -> JobResult:
    return (await job.result(JOB_DEADLINE_S)).raise_for_status()


def _enlarged(path: Path) -> Path:
    """A copy of a picture with every pixel as a square, beside it."""
    from PIL import Image  # comes with the worker; `headrace up` does not need it

    target = path.with_stem(f"{path.stem}-x{ENLARGE}")
    with Image.open(path) as picture:
        size = (picture.width * ENLARGE, picture.height * ENLARGE)
        picture.resize(size, Image.Resampling.NEAREST).save(target)
    return target
