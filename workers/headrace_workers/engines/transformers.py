"""Text generation by transformers: any causal language model, from a local folder.

A step is one token of every running text, and a piece of one prompt that waits: jobs join and leave between tokens.
In float32 a job's text is the same alone and in company; half formats promise that only for the same company.

Options: `dtype` (float32, float16, bfloat16; absent: float32 on a CPU, bfloat16 on a GPU).
"""

import collections
import random
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headrace_contracts.errors import ErrorCode, Fault, Permanent
from headrace_contracts.model import ModelSpec
from headrace_contracts.result import Usage
from headrace_contracts.tasks import FinishReason, TextGenerationInput, TextGenerationOutput
from headrace_workers.engines.base import Finished, Sink, Work
from headrace_workers.engines.device import DTypeName, torch_device, torch_dtype
from headrace_workers.engines.options import need_folder, read_options
from headrace_workers.engines.text_stream import StopFilter, TextStream

if TYPE_CHECKING:
    from headrace_workers.engines.text_decoder import Decoder, Prefill
    from headrace_workers.engines.text_prompt import Prompter
    from headrace_workers.engines.text_sampling import Sampler

DEFAULT_MAX_TOKENS = 256

# Chunks already show that a text grows; progress is for bars, and each report costs a write.
_PROGRESS_EVERY_TOKENS = 16

_RANDOM_SEED_BITS = 32


class TransformersOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `options` of a model may set."""

    dtype: DTypeName | None = None


class _Job:
    """One text: its prompt, and what was written so far."""

    def __init__(
        self, work: Work[TextGenerationInput], prefill: "Prefill", sampler: "Sampler", stream: TextStream, budget: int
    ) -> None:
        self.work = work
        self.run_id = work.run_id
        self.prefill = prefill
        self.sampler = sampler
        self.stream = stream
        self.stop = StopFilter(work.input.stop)
        self.budget = budget
        """Most tokens to write."""
        self.seed = 0
        self.token = 0
        """The newest token, not yet read by the model."""
        self.written = 0
        self.text: list[str] = []


class TransformersEngine:
    """Writes texts, `batching.max_size` at once. Takes a source of seeds for jobs that name none."""

    _decoder: "Decoder"
    _prompter: "Prompter"
    _ends: frozenset[int]
    _spec: ModelSpec
    _sink: Sink

    def __init__(self, seeds: random.Random) -> None:
        self._seeds = seeds
        self._waiting: collections.deque[_Job] = collections.deque()
        self._running: list[_Job] = []
        """In the order of the decoder's rows."""

    def load(self, spec: ModelSpec, weights: Path | None, sink: Sink) -> str:
        """See `Engine.load`.

        Raises:
            WeightsError: no folder, a file is missing, or it holds no causal language model in safetensors.
            InvalidSpec: an option or the device is wrong.
        """
        folder = need_folder(spec, weights, "config.json")
        options = read_options(spec, TransformersOptions)
        from headrace_workers.engines import text_decoder
        from headrace_workers.engines.text_prompt import Prompter

        device = torch_device(spec)
        dtype = torch_dtype(options.dtype, device, on_gpu="bfloat16")
        model = text_decoder.load_model(spec, folder, device, dtype)
        self._prompter = Prompter.load(spec, folder, text_decoder.context_tokens(model))
        self._ends = text_decoder.end_tokens(model, self._prompter.tokenizer.eos_token_id)
        self._decoder = text_decoder.Decoder(model)
        self._spec, self._sink = spec, sink
        return device

    def warm_up(self) -> None:
        """See `Engine.warm_up`."""
        self._decoder.warm_up()

    @property
    def busy(self) -> bool:
        """Whether a text is being written or a prompt waits."""
        return bool(self._running or self._waiting)

    def admit(self, work: Work[TextGenerationInput]) -> None:
        """Turn the prompt into tokens.

        Raises:
            InvalidInput: the prompt leaves no room in the model's context, or the chat template refuses it.
        """
        from headrace_workers.engines.text_decoder import Prefill
        from headrace_workers.engines.text_sampling import Sampler

        wanted = work.input
        ids = self._prompter.encode(wanted)
        seed = self._seeds.getrandbits(_RANDOM_SEED_BITS) if wanted.seed is None else wanted.seed
        most = wanted.max_tokens or min(DEFAULT_MAX_TOKENS, self._spec.limits.max_output_tokens)
        job = _Job(
            work,
            Prefill(ids),
            Sampler(wanted.temperature or 0.0, 1.0 if wanted.top_p is None else wanted.top_p, seed),
            TextStream(self._prompter.tokenizer.backend_tokenizer),
            min(most, self._prompter.context - len(ids)),
        )
        job.seed = seed
        self._waiting.append(job)

    def step(self) -> None:
        """One more token of every running text, then one more piece of the oldest waiting prompt."""
        for job in [*self._running, *self._waiting]:
            if self._sink.canceled(job.run_id):
                self.drop(job.run_id)
        if self._running:
            tokens = self._decoder.next_tokens([j.token for j in self._running], [j.sampler for j in self._running])
            for job, token in list(zip(self._running, tokens, strict=True)):
                if not self._take(job, token):
                    self.drop(job.run_id)
        if self._waiting:
            self._read_on(self._waiting[0])

    def drop(self, run_id: str) -> None:
        """Forget a text."""
        for row, job in enumerate(self._running):
            if job.run_id == run_id:
                del self._running[row]
                self._decoder.leave(row)
                return
        for job in self._waiting:
            if job.run_id == run_id:
                self._waiting.remove(job)
                return

    def _read_on(self, job: _Job) -> None:
        if job.prefill.read == 0:
            self._sink.started(job.run_id)
        token = self._decoder.advance(job.prefill, job.sampler)
        if token is None:
            self._sink.progress(job.run_id, 0, job.budget)
            return
        self._waiting.popleft()
        if self._take(job, token):
            self._decoder.join(job.prefill)
            self._running.append(job)

    def _take(self, job: _Job, token: int) -> bool:
        """Add a token to a text and report it; whether the text goes on."""
        from headrace_workers.engines.text_sampling import BAD_TOKEN

        if token == BAD_TOKEN:
            message = "the model computed values that are no numbers (NaN): it may need `dtype` float32 or bfloat16"
            self._sink.failed(job.run_id, Permanent(ErrorCode.MODEL_ERROR, message, Fault.MODEL))
            return False
        job.token = token
        job.written += 1
        if token in self._ends:
            return self._finish(job, FinishReason.STOP)
        text, stopped = job.stop.push(job.stream.push(token))
        self._send(job, text)
        if stopped:
            return self._finish(job, FinishReason.STOP)
        if job.written == job.budget:
            return self._finish(job, FinishReason.LENGTH)
        if job.written % _PROGRESS_EVERY_TOKENS == 0:
            self._sink.progress(job.run_id, job.written, job.budget)
        return True

    def _send(self, job: _Job, text: str) -> None:
        if text:
            job.text.append(text)
            self._sink.chunk(job.run_id, text)

    def _finish(self, job: _Job, reason: FinishReason) -> bool:
        self._send(job, job.stop.rest())
        output = TextGenerationOutput("".join(job.text), reason, job.seed)
        usage = Usage(tokens_in=len(job.prefill.ids), tokens_out=job.written)
        self._sink.progress(job.run_id, job.written, job.written)
        self._sink.finished(job.run_id, Finished(output, usage=usage))
        return False
