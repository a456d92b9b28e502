"""The tasks a model can do: what each takes, gives, and refuses."""

from headrace_contracts.tasks.registry import Task, TaskInput, decode_input, input_schema, output_schema
from headrace_contracts.tasks.speech_to_text import Segment, SpeechToTextInput, SpeechToTextOutput, Word
from headrace_contracts.tasks.synthetic import SyntheticInput, SyntheticOutput
from headrace_contracts.tasks.text_generation import (
    FinishReason,
    Message,
    Role,
    TextGenerationInput,
    TextGenerationOutput,
)
from headrace_contracts.tasks.text_to_image import ImageFormat, TextToImageInput, TextToImageOutput

__all__ = [
    "FinishReason",
    "ImageFormat",
    "Message",
    "Role",
    "Segment",
    "SpeechToTextInput",
    "SpeechToTextOutput",
    "SyntheticInput",
    "SyntheticOutput",
    "Task",
    "TaskInput",
    "TextGenerationInput",
    "TextGenerationOutput",
    "TextToImageInput",
    "TextToImageOutput",
    "Word",
    "decode_input",
    "input_schema",
    "output_schema",
]
