"""`headrace demo`: a real job of each kind through the whole system, by way of the SDK; from nothing, then warm."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from headrace import Client, Handle, JobResult
from headrace_contracts.alert import ScalingDecision, WorkerColdStart
from headrace_contracts.errors import HeadraceError
from headrace_contracts.event import Progress
from headrace_contracts.result import Status
from headrace_local.demo_view import DemoView, Row
from headrace_local.system import Event, LocalSystem

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


def of_the_demo(event: Event) -> bool:
    """Whether an event belongs to the story: starts and what keeps them from being made, and not ends."""
    match event:
        case ScalingDecision():
            return bool(event.started or event.blocked)
        case WorkerColdStart():  # told in the middle of the answer; the table has it
            return False
        case _:
            return True


async def run_demo(system: LocalSystem, out: Path, view: DemoView) -> bool:
    """Start the system, run each of the three jobs twice, show what came of them; whether all succeeded."""
    view.say(
        "Starting nats-server and a scaler; no model is loaded (the first time, weights are converted: a minute) ..."
    )
    async with system:
        memory_bytes = await system.wait_warm()
        if memory_bytes:
            view.say(f"The workers' warm parent is ready: {memory_bytes >> 20} MiB, all libraries imported.")
        async with Client(system.settings) as client:
            rows = [
                *await _rows(view, MODELS[0], lambda: _image(client, view, out)),
                *await _rows(view, MODELS[1], lambda: _speech(client, view)),
                *await _rows(view, MODELS[2], lambda: _chat(client, view)),
            ]
        view.table(rows)
        view.say("Stopping ...")
    return all(row.status == Status.SUCCEEDED for row in rows)


async def _rows(view: DemoView, model: str, job: Callable[[], Awaitable[tuple[JobResult, str]]]) -> list[Row]:
    """Run one job of the demo cold and warm; what it raises is shown, and the others go on."""
    rows = []
    for start in ("cold", "warm"):
        try:
            result, artifact = await job()
        except (HeadraceError, OSError) as error:
            view.say(f"  failed: {error}")
            rows.append(Row(model, start, "failed"))
        else:
            total_s = (result.completed_at - result.created_at).total_seconds()
            rows.append(Row(model, start, result.status, total_s, result.timings, artifact))
    return rows


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
