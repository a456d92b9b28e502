"""Speech to text by faster-whisper: any CTranslate2 Whisper folder.

Recordings come as samples, decoded; a step writes down one segment of every recording. Not preemptible inside one
window of 30 s; between windows a canceled job stops, even where nobody speaks.

Options: `compute_type`, CTranslate2's own names (default: int8 on a CPU, float16 on a GPU).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import msgspec

from headrace_contracts.errors import InvalidInput, WeightsError
from headrace_contracts.model import ModelSpec
from headrace_contracts.result import Usage
from headrace_contracts.tasks import Segment, SpeechToTextInput, SpeechToTextOutput, Word
from headrace_contracts.tasks.speech_to_text import SpeechTask
from headrace_workers.decoding.frames import SAMPLE_RATE
from headrace_workers.engines.base import Finished, Sink, Work
from headrace_workers.engines.device import ctranslate2_device
from headrace_workers.engines.options import need_folder, read_options

if TYPE_CHECKING:
    import ctranslate2
    import faster_whisper
    import numpy as np
    import numpy.typing as npt

DEFAULT_BEAM_SIZE = 5


class FasterWhisperOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `options` of a model may set."""

    compute_type: str | None = None


class _Canceled(Exception):
    """Leaves the library between two windows."""


class _Job:
    """One recording and what was heard so far."""

    def __init__(self, work: Work[SpeechToTextInput], samples: "npt.NDArray[np.float32]", duration_s: float) -> None:
        self.work = work
        self.samples = samples
        self.duration_s = duration_s
        self.done_s = 0.0
        self.text = ""
        self.language = ""
        self.segments: list[Segment] = []
        self.heard: Iterator[faster_whisper.transcribe.Segment] | None = None
        """Lazy: every `next` runs the model. None until the first step."""


class FasterWhisperEngine:
    """Runs Whisper; `batching.max_size` recordings take turns, segment by segment."""

    _model: "faster_whisper.WhisperModel"
    _spec: ModelSpec
    _sink: Sink

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._stepping: _Job | None = None

    def load(self, spec: ModelSpec, weights: Path | None, sink: Sink) -> str:
        """See `Engine.load`.

        Raises:
            WeightsError: no folder, a file is missing, or it is not a Whisper model.
            InvalidSpec: an option or the device is wrong.
        """
        # Without tokenizer.json the library would ask the network for one.
        folder = need_folder(spec, weights, "model.bin", "config.json", "tokenizer.json")
        options = read_options(spec, FasterWhisperOptions)
        import faster_whisper

        from headrace_workers.engines.mel import BlockwiseFeatureExtractor

        kind, index = ctranslate2_device(spec)
        try:
            self._model = faster_whisper.WhisperModel(
                str(folder),
                device=kind,
                device_index=index,
                compute_type=options.compute_type or ("int8" if kind == "cpu" else "float16"),
                cpu_threads=spec.resources.threads,
                local_files_only=True,
            )
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"model {spec.name}: {folder} cannot be loaded: {error}") from error
        # A control token spelled out in an `initial_prompt` is text like any other.
        self._model.hf_tokenizer.encode_special_tokens = True
        self._model.feature_extractor = BlockwiseFeatureExtractor(**self._model.feat_kwargs)
        self._spec, self._sink = spec, sink
        self._encode = self._model.encode
        self._model.encode = self._between_windows
        return kind if kind == "cpu" else f"{kind}:{index}"

    def warm_up(self) -> None:
        """See `Engine.warm_up`. One second of silence, and not the 30 s of a window, which cost half a second."""
        import numpy as np

        features = self._model.feature_extractor(np.zeros(SAMPLE_RATE, np.float32))
        tokenizer = self._model.hf_tokenizer
        start = [tokenizer.token_to_id("<|startoftranscript|>")]
        self._model.model.generate(self._encode(features), [start], beam_size=1, max_length=len(start) + 1)

    @property
    def busy(self) -> bool:
        """Whether a recording is in."""
        return bool(self._jobs)

    def admit(self, work: Work[SpeechToTextInput]) -> None:
        """Take in the samples.

        Raises:
            InvalidInput: the model cannot do what is asked.
        """
        self._check(work.input)
        # Here, so that naming the engine does not import numpy.
        from headrace_workers.engines.audio import read_samples

        samples = read_samples(work.files["audio"])
        self._jobs[work.run_id] = _Job(work, samples, len(samples) / SAMPLE_RATE)

    def step(self) -> None:
        """Write down the next segment of every recording."""
        for run_id, job in list(self._jobs.items()):
            self._stepping = job
            try:
                self._advance(job)
            except _Canceled:
                self.drop(run_id)
            finally:
                self._stepping = None

    def drop(self, run_id: str) -> None:
        """Forget a recording."""
        self._jobs.pop(run_id, None)

    def _check(self, wanted: SpeechToTextInput) -> None:
        known = self._model.supported_languages
        if wanted.language is not None and wanted.language not in known:
            listed = ", ".join(sorted(known))
            raise InvalidInput("input.language", f"{wanted.language!r} is none of this model's languages ({listed})")
        if wanted.task is SpeechTask.TRANSLATE and known == ["en"]:
            raise InvalidInput("input.task", "this model knows English only and cannot translate")
        if wanted.initial_prompt:
            # The library keeps the last tokens of a longer prompt, and says nothing.
            limit = self._model.max_length // 2 - 1
            tokens = len(self._model.hf_tokenizer.encode(wanted.initial_prompt, add_special_tokens=False))
            if tokens > limit:
                raise InvalidInput("input.initial_prompt", f"{tokens} tokens is over this model's limit of {limit}")

    def _advance(self, job: _Job) -> None:
        run_id = job.work.run_id
        if self._sink.canceled(run_id):
            raise _Canceled
        if job.heard is None:
            self._sink.started(run_id)
            job.heard = self._begin(job)
        heard = next(job.heard, None)
        if heard is None:
            self._finish(job)
            return
        text = heard.text if job.text else heard.text.lstrip()
        job.text += text
        job.segments.append(_segment(heard))
        job.done_s = max(job.done_s, min(_rounded(heard.end), job.duration_s))
        self._sink.chunk(run_id, text)
        self._sink.progress(run_id, job.done_s, job.duration_s)

    def _begin(self, job: _Job) -> "Iterator[faster_whisper.transcribe.Segment]":
        wanted = job.work.input
        match wanted.task:
            case SpeechTask.TRANSCRIBE | SpeechTask.TRANSLATE:
                task = wanted.task.value
            case _:
                assert_never(wanted.task)
        heard, info = self._model.transcribe(
            job.samples,
            language=wanted.language,
            task=task,
            beam_size=wanted.beam_size or DEFAULT_BEAM_SIZE,
            # One temperature: the library's list of six falls back to random sampling, so no run is like another.
            temperature=wanted.temperature or 0.0,
            initial_prompt=wanted.initial_prompt or None,
            word_timestamps=wanted.word_timestamps,
            vad_filter=wanted.vad_filter,
        )
        job.language = info.language
        return iter(heard)

    def _finish(self, job: _Job) -> None:
        self.drop(job.work.run_id)
        output = SpeechToTextOutput(
            text=job.text, language=job.language, duration_s=_rounded(job.duration_s), segments=tuple(job.segments)
        )
        self._sink.progress(job.work.run_id, job.duration_s, job.duration_s)
        self._sink.finished(job.work.run_id, Finished(output, usage=Usage(audio_s=_rounded(job.duration_s))))

    def _between_windows(self, features: "npt.NDArray[np.float32]") -> "ctranslate2.StorageView":
        """Stands before every window: the library itself yields only where it heard something."""
        if job := self._stepping:
            if self._sink.canceled(job.work.run_id):
                raise _Canceled
            self._sink.progress(job.work.run_id, job.done_s, job.duration_s)
        return self._encode(features)


def _segment(heard: "faster_whisper.transcribe.Segment") -> Segment:
    words = None
    if heard.words is not None:
        words = tuple(
            Word(_rounded(word.start), _rounded(word.end), word.word.strip(), _rounded(word.probability))
            for word in heard.words
        )
    return Segment(_rounded(heard.start), _rounded(heard.end), heard.text.strip(), words)


def _rounded(number: float) -> float:
    """To thousandths, and a plain float: with word times the library gives numpy's, which no codec of ours takes."""
    return round(float(number), 3)
