"""Speech to text: a recording becomes words with times."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from headrace_contracts.file import File
from headrace_contracts.limits import Limits, at_most, prompt_within


class SpeechTask(StrEnum):
    """Write down what was said, in its own language or in English."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


class SpeechToTextInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The recording and how to read it."""

    audio: File
    """Any format FFmpeg's libraries read: WAV, MP3, FLAC, OGG, M4A ..."""
    language: Annotated[str, Meta(pattern="^[a-z]{2,3}$")] | None = None
    """ISO 639 code, as in `en`; absent: detected."""
    task: SpeechTask = SpeechTask.TRANSCRIBE
    word_timestamps: bool = False
    vad_filter: bool = False
    """Skip silence by voice activity detection."""
    beam_size: Annotated[int, Meta(ge=1, le=20)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    """0 is deterministic; absent: the model's default."""
    initial_prompt: str | None = None
    """Words to expect: names, spelling, style."""

    def check(self, limits: Limits) -> None:
        """Raise `InvalidInput` for the first field that is over a limit."""
        size_bytes = len(self.audio.inline) if self.audio.inline is not None else self.audio.size_bytes or 0
        at_most("audio", size_bytes, limits.max_file_bytes, "bytes")
        if self.initial_prompt is not None:
            prompt_within("initial_prompt", self.initial_prompt, limits)


class Word(msgspec.Struct, frozen=True):
    """One word; times are seconds from the start of the recording."""

    start_s: float
    end_s: float
    word: str
    probability: float


class Segment(msgspec.Struct, frozen=True):
    """A stretch of speech; times are seconds from the start of the recording."""

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] | None = None


class SpeechToTextOutput(msgspec.Struct, frozen=True):
    """What was said."""

    text: str
    language: str
    duration_s: float
    segments: tuple[Segment, ...]
