"""The library called directly, in a process of its own: what a worker's throughput is held against.

    python -m benchmarks.direct SPEC.json WEIGHTS

Reads one JSON list of task inputs a line, runs them one after the other by the library's own call, and answers each
line with an `Answer`. Nothing of a worker or an engine runs here; only which device, number format and number of
threads are taken from where engines take them, so that both sides compute the same.
"""

import hashlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.tasks import SpeechToTextInput, TextGenerationInput, TextToImageInput
from headrace_contracts.tasks.registry import TaskInput, input_type
from headrace_workers.engines.device import ctranslate2_device, torch_device, torch_dtype

Call = Callable[[Any], str]  # Any: each call takes its own task's input


class Answer(msgspec.Struct, frozen=True):
    """One line's inputs were run."""

    total_s: float
    device: str
    outputs: list[str]
    """Texts, or hashes of pixels: to check that a worker makes the same."""


def pixels_hash(pixels: npt.NDArray[np.uint8]) -> str:
    """Name of a picture by its pixels, (height, width, 3)."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def diffusers_call(spec: ModelSpec, weights: str) -> tuple[Call, str]:
    """`DiffusionPipeline.__call__`."""
    from diffusers import DiffusionPipeline
    from torch import Generator

    device = torch_device(spec)
    pipe = DiffusionPipeline.from_pretrained(
        weights, torch_dtype=torch_dtype(None, device, on_gpu="float16"), use_safetensors=True, local_files_only=True
    ).to(device)
    pipe.set_progress_bar_config(disable=True)

    def call(wanted: TextToImageInput) -> str:
        image = pipe(
            wanted.prompt,
            width=wanted.width,
            height=wanted.height,
            num_inference_steps=wanted.steps,
            guidance_scale=wanted.guidance_scale,
            generator=Generator("cpu").manual_seed(wanted.seed or 0),
        ).images[0]
        return pixels_hash(np.asarray(image))

    return call, device


def faster_whisper_call(spec: ModelSpec, weights: str) -> tuple[Call, str]:
    """`WhisperModel.transcribe`, its decoding of the file included."""
    from faster_whisper import WhisperModel

    kind, index = ctranslate2_device(spec)
    compute_type = "int8" if kind == "cpu" else "float16"
    model = WhisperModel(
        weights,
        device=kind,
        device_index=index,
        compute_type=compute_type,
        cpu_threads=spec.resources.threads,
        local_files_only=True,
    )

    def call(wanted: SpeechToTextInput) -> str:
        recording = io.BytesIO(wanted.audio.inline or b"")
        segments, _ = model.transcribe(recording, language=wanted.language, temperature=wanted.temperature)
        return "".join(segment.text for segment in segments).strip()

    return call, kind


def transformers_call(spec: ModelSpec, weights: str) -> tuple[Call, str]:
    """`model.generate`, greedy."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = torch_device(spec)
    tokenizer = AutoTokenizer.from_pretrained(weights, local_files_only=True)
    dtype = torch_dtype(None, device, on_gpu="bfloat16")
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=dtype, local_files_only=True).to(device).eval()

    def call(wanted: TextGenerationInput) -> str:
        turns = [{"role": "user", "content": wanted.prompt}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        written = model.generate(**prompt.to(device), max_new_tokens=wanted.max_tokens, do_sample=False)
        text: str = tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        return text.strip()

    return call, device


CALLS = {
    EngineKind.DIFFUSERS: diffusers_call,
    EngineKind.FASTER_WHISPER: faster_whisper_call,
    EngineKind.TRANSFORMERS: transformers_call,
}


def main(spec_file: str, weights: str) -> None:
    """Load, then answer lines until standard input ends."""
    spec = msgspec.json.decode(Path(spec_file).read_bytes(), type=ModelSpec)
    call, device = CALLS[spec.engine](spec, weights)
    decoder: msgspec.json.Decoder[list[TaskInput]] = msgspec.json.Decoder(list[input_type(spec.task)])  # type: ignore[misc]
    for line in sys.stdin.buffer:
        inputs = decoder.decode(line)
        began = perf_counter()
        outputs = [call(wanted) for wanted in inputs]
        answer = Answer(perf_counter() - began, device, outputs)
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
