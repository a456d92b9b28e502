"""What the real models are given: the same inputs for a worker and for the direct call, every field said out loud."""

import msgspec

from headrace_contracts.file import File
from headrace_contracts.model import Batching, ModelSpec
from headrace_contracts.tasks import SpeechToTextInput, TextGenerationInput, TextToImageInput
from headrace_contracts.tasks.registry import TaskInput
from headrace_local.models import FOLDER, find_model

SPEECH = FOLDER.parent / "data" / "speech"

COLOURS = ("red", "blue", "green", "yellow")
SHAPES = ("circle", "square", "triangle", "star")
QUESTIONS = (
    "What is the capital of France?",
    "Name three animals that live in the sea, and say one thing about each.",
    "Why is the sky blue?",
    "Write two sentences about a river.",
)


class Workload(msgspec.Struct, frozen=True):
    """One model and the inputs of one round."""

    spec: ModelSpec
    inputs: tuple[TaskInput, ...]
    batched: ModelSpec | None = None
    """The same model with a larger batch, measured beside it."""


def workloads(*, quick: bool) -> list[Workload]:
    """The three real models."""
    return [_pictures(2 if quick else 12), _speech(2 if quick else 6), _texts(8 if quick else 24)]


def _pictures(count: int) -> Workload:
    inputs = tuple(
        TextToImageInput(
            f"a {COLOURS[i % 4]} {SHAPES[i // 4 % 4]} on a {COLOURS[(i + 1) % 4]} background",
            width=32,
            height=32,
            steps=20,
            guidance_scale=5.0,
            seed=i,
        )
        for i in range(count)
    )
    return Workload(_one_by_one("tiny-shapes"), inputs)


def _speech(count: int) -> Workload:
    recordings = sorted(SPEECH.glob("*.wav"))
    inputs = tuple(
        SpeechToTextInput(
            File(inline=recordings[i % len(recordings)].read_bytes(), content_type="audio/wav"),
            language="en",
            temperature=0.0,
        )
        for i in range(count)
    )
    return Workload(_one_by_one("whisper-tiny-en"), inputs)


def _texts(tokens: int) -> Workload:
    inputs = tuple(TextGenerationInput(question, max_tokens=tokens, temperature=0.0) for question in QUESTIONS)
    spec = _one_by_one("smollm2-135m")
    batch = Batching(max_size=len(inputs))
    return Workload(spec, inputs, msgspec.structs.replace(spec, name=f"{spec.name}-batched", batching=batch))


def _one_by_one(name: str) -> ModelSpec:
    """A bundled model that runs one job at a time, as a direct call does."""
    return msgspec.structs.replace(find_model(name), batching=Batching(max_size=1))
