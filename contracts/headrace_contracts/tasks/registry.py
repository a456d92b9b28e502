"""Task by name: which input it takes, which output it gives, and how an input is read and refused."""

import re
from enum import StrEnum
from typing import assert_never

import msgspec

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import InvalidInput, UndecodableMessage
from headrace_contracts.limits import Limits
from headrace_contracts.tasks.speech_to_text import SpeechToTextInput, SpeechToTextOutput
from headrace_contracts.tasks.synthetic import SyntheticInput, SyntheticOutput
from headrace_contracts.tasks.text_generation import TextGenerationInput, TextGenerationOutput
from headrace_contracts.tasks.text_to_image import TextToImageInput, TextToImageOutput

TaskInput = TextToImageInput | SpeechToTextInput | TextGenerationInput | SyntheticInput
TaskOutput = TextToImageOutput | SpeechToTextOutput | TextGenerationOutput | SyntheticOutput

_FIELD = re.compile(r"^Object (?P<problem>contains unknown|missing required) field `(?P<name>[^`]*)`")
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


class Task(StrEnum):
    """What a model does."""

    TEXT_TO_IMAGE = "text-to-image"
    SPEECH_TO_TEXT = "speech-to-text"
    TEXT_GENERATION = "text-generation"
    SYNTHETIC = "synthetic"


def input_type(task: Task) -> type[TaskInput]:
    """Struct of the task's input."""
    match task:
        case Task.TEXT_TO_IMAGE:
            return TextToImageInput
        case Task.SPEECH_TO_TEXT:
            return SpeechToTextInput
        case Task.TEXT_GENERATION:
            return TextGenerationInput
        case Task.SYNTHETIC:
            return SyntheticInput
        case _:
            assert_never(task)


def output_type(task: Task) -> type[TaskOutput]:
    """Struct of the task's output."""
    match task:
        case Task.TEXT_TO_IMAGE:
            return TextToImageOutput
        case Task.SPEECH_TO_TEXT:
            return SpeechToTextOutput
        case Task.TEXT_GENERATION:
            return TextGenerationOutput
        case Task.SYNTHETIC:
            return SyntheticOutput
        case _:
            assert_never(task)


def input_schema(task: Task) -> dict[str, object]:
    """JSON Schema of the task's input."""
    return msgspec.json.schema(input_type(task))


def output_schema(task: Task) -> dict[str, object]:
    """JSON Schema of the task's output."""
    return msgspec.json.schema(output_type(task))


def decode_input(task: Task, raw: bytes | msgspec.Raw, encoding: Encoding, limits: Limits) -> TaskInput:
    """Read a job's input and hold it against the model's limits.

    Raises:
        InvalidInput: names the field, as in `input.steps`, and the limit it broke.
    """
    try:
        decoded = codec.decode(raw, input_type(task), encoding)
    except UndecodableMessage as error:
        raise _as_invalid_input(error.reason) from error
    decoded.check(limits)
    return decoded


def _as_invalid_input(reason: str) -> InvalidInput:
    """Turn msgspec's sentence into a field and a problem: "Expected `int`, got `str` - at `$.steps`"."""
    at = _PATH.search(reason)
    path = ["input", at["path"]] if at and at["path"] else ["input"]
    problem = _PATH.sub("", reason)
    if named := _FIELD.search(problem):
        path.append(named["name"])
        problem = "is required" if named["problem"] == "missing required" else "is not a field of this task's input"
    if path[-1] == "audio" and "got `str`" in problem:
        problem = 'a file is {"$blob": ...} or {"$inline": ...}; text and URLs are not fetched'
    return InvalidInput(".".join(path), problem)
