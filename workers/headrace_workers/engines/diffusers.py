"""Text to image by diffusers: any pipeline of its own classes, from a local folder.

A step is one call of the pipeline over up to `batching.max_size` pictures that share size, steps and guidance, of one
job or of several; pictures are taken in the order their jobs came. Files are written by a thread meanwhile.

The same job gives the same bytes again; in other company, a colour may differ by one of 255 levels (in float32).

Options: `dtype` (float32, float16, bfloat16; absent: float32 on a CPU, float16 on a GPU), `variant` (as in `fp16`).
"""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headrace_contracts.errors import ErrorCode, Fault, InvalidInput, JobError, Permanent, Retryable
from headrace_contracts.limits import at_most
from headrace_contracts.model import ModelSpec
from headrace_contracts.result import Usage
from headrace_contracts.tasks import TextToImageInput, TextToImageOutput
from headrace_workers.engines.base import Finished, Sink, Work
from headrace_workers.engines.device import DTypeName, torch_device, torch_dtype
from headrace_workers.engines.options import need_folder, read_options

if TYPE_CHECKING:
    from headrace_workers.engines.pipeline import Pipeline, Pixels, Settings

# JavaScript reads numbers up to 2^53; 32 bits are also easy to type again.
_RANDOM_SEED_BITS = 32

# One thread encodes while the device draws; more would take its CPU.
_ENCODERS = 1


class DiffusersOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `options` of a model may set."""

    dtype: DTypeName | None = None
    variant: str | None = None


class _AllCanceled(Exception):
    """Leaves the pipeline between two steps."""


class _Job:
    """One job and its pictures, drawn or not."""

    def __init__(self, work: Work[TextToImageInput], settings: "Settings", seed: int) -> None:
        self.work = work
        self.settings = settings
        self.seed = seed
        self.started = False
        self.pictures: list[Pixels] = []

    @property
    def missing(self) -> int:
        """Pictures still to be drawn."""
        return self.work.input.num_images - len(self.pictures)


class DiffusersEngine:
    """Draws pictures. Takes a source of seeds for jobs that name none."""

    _pipeline: "Pipeline"
    _spec: ModelSpec
    _sink: Sink

    def __init__(self, seeds: random.Random) -> None:
        self._seeds = seeds
        self._jobs: dict[str, _Job] = {}
        self._encoders = ThreadPoolExecutor(_ENCODERS, thread_name_prefix="encode")
        self._writing: set[str] = set()
        # Held while a thread reports a job, so that nothing is reported after `drop` returned.
        self._reporting = threading.Lock()

    def load(self, spec: ModelSpec, weights: Path | None, sink: Sink) -> str:
        """See `Engine.load`.

        Raises:
            WeightsError: no folder, a file is missing, or it holds no pipeline in safetensors.
            InvalidSpec: an option or the device is wrong.
        """
        folder = need_folder(spec, weights, "model_index.json")
        options = read_options(spec, DiffusersOptions)
        from headrace_workers.engines.pipeline import Pipeline

        device = torch_device(spec)
        dtype = torch_dtype(options.dtype, device, on_gpu="float16")
        self._pipeline = Pipeline.load(spec, folder, device, dtype, options.variant)
        self._spec, self._sink = spec, sink
        return device

    def warm_up(self) -> None:
        """See `Engine.warm_up`."""
        from headrace_workers.engines.pipeline import Drawing

        # Two steps: some schedulers cannot do one.
        self._pipeline.draw(self._settings(TextToImageInput("warm up", steps=2)), [Drawing("warm up", "", 0)], _ignore)

    @property
    def busy(self) -> bool:
        """Whether pictures are still to be drawn."""
        return bool(self._jobs)

    def admit(self, work: Work[TextToImageInput]) -> None:
        """Check the job against what the pipeline can do.

        Raises:
            InvalidInput: a field the pipeline has no use for, a prompt too long for it, or a size or number of steps
                over the model's limits with the pipeline's own defaults filled in.
        """
        settings = self._settings(work.input)
        at_most("steps", settings.steps, self._spec.limits.max_steps)
        side = "height" if work.input.height and not work.input.width else "width"
        at_most(side, settings.width * settings.height, self._spec.limits.max_pixels, "pixels (width x height)")
        self._pipeline.check_prompt("prompt", work.input.prompt)
        if settings.has_negative:
            self._pipeline.check_prompt("negative_prompt", work.input.negative_prompt)
        seed = work.input.seed
        if seed is None:
            seed = self._seeds.getrandbits(_RANDOM_SEED_BITS)
        self._jobs[work.run_id] = _Job(work, settings, seed)

    def step(self) -> None:
        """Draw one batch; the jobs it completes are reported when their files are written."""
        batch = self._next_batch()
        if not batch:
            return
        from headrace_workers.engines.pipeline import Drawing

        drawings = [
            Drawing(job.work.input.prompt, job.work.input.negative_prompt, job.seed + len(job.pictures) + i)
            for job, count in batch
            for i in range(count)
        ]
        try:
            drawn = iter(self._pipeline.draw(batch[0][0].settings, drawings, lambda part: self._on_step(batch, part)))
        except _AllCanceled:
            return
        for job, count in batch:
            self._keep(job, [next(drawn) for _ in range(count)])

    def drop(self, run_id: str) -> None:
        """Forget a job, also one whose files are being written."""
        self._jobs.pop(run_id, None)
        with self._reporting:
            self._writing.discard(run_id)

    def _settings(self, wanted: TextToImageInput) -> "Settings":
        from headrace_workers.engines.pipeline import Settings

        for field in ("negative_prompt", "guidance_scale", "width", "height"):
            if getattr(wanted, field):
                self._pipeline.check_accepts(field)
        native = self._pipeline.native_size
        width = wanted.width or (native and native[0])
        height = wanted.height or (native and native[1])
        if not width or not height:
            field = "height" if width else "width"
            raise InvalidInput(f"input.{field}", "is required: this model has no size of its own")
        return Settings(
            width=width,
            height=height,
            steps=wanted.steps or self._pipeline.default_steps,
            guidance_scale=wanted.guidance_scale,
            has_negative=bool(wanted.negative_prompt),
        )

    def _next_batch(self) -> list[tuple[_Job, int]]:
        """The oldest job and all that can be drawn with it, each with its number of pictures in this call."""
        for run_id in list(self._jobs):
            if self._sink.canceled(run_id):
                self.drop(run_id)
        batch: list[tuple[_Job, int]] = []
        room = self._spec.batching.max_size
        for job in self._jobs.values():
            if room and (not batch or job.settings == batch[0][0].settings):
                batch.append((job, min(room, job.missing)))
                room -= batch[-1][1]
                if not job.started:
                    job.started = True
                    self._sink.started(job.work.run_id)
        return batch

    def _on_step(self, batch: list[tuple[_Job, int]], part: float) -> None:
        alive = False
        for job, count in batch:
            run_id = job.work.run_id
            if run_id in self._jobs and self._sink.canceled(run_id):
                self.drop(run_id)
            if run_id not in self._jobs:
                continue
            alive = True
            steps = job.settings.steps
            done = steps * (len(job.pictures) + count * part)
            self._sink.progress(run_id, round(done, 2), steps * job.work.input.num_images)
        if not alive:
            raise _AllCanceled

    def _keep(self, job: _Job, drawn: "list[Pixels | Permanent]") -> None:
        run_id = job.work.run_id
        if run_id not in self._jobs:
            return
        for picture in drawn:
            if isinstance(picture, Permanent):
                self.drop(run_id)
                self._sink.failed(run_id, picture)
                return
            job.pictures.append(picture)
        if not job.missing:
            del self._jobs[run_id]
            self._writing.add(run_id)
            self._encoders.submit(self._write, job)

    def _write(self, job: _Job) -> None:
        """In the encoding thread: write the files and report."""
        run_id, wanted = job.work.run_id, job.work.input
        failure: JobError | None = None
        try:
            from headrace_workers.engines.pictures import write_picture

            files = tuple(
                write_picture(pixels, i, wanted.format, job.work.out_dir) for i, pixels in enumerate(job.pictures)
            )
        except OSError as error:
            failure = Retryable(ErrorCode.INTERNAL, f"a picture could not be written: {error.strerror}", Fault.WORKER)
        except Exception as error:  # noqa: BLE001 - the job's boundary: in a thread nobody else would see it
            failure = Permanent(
                ErrorCode.INTERNAL, f"a picture could not be encoded: {type(error).__name__}", Fault.WORKER
            )
        with self._reporting:
            if run_id not in self._writing:
                return
            self._writing.discard(run_id)
            if failure is not None:
                self._sink.failed(run_id, failure)
                return
            height, width = job.pictures[0].shape[:2]
            output = TextToImageOutput(
                images=tuple(file.name for file in files),
                seeds=tuple(job.seed + i for i in range(wanted.num_images)),
                width=width,
                height=height,
            )
            self._sink.finished(run_id, Finished(output, files, Usage(images=wanted.num_images)))


def _ignore(_part: float) -> None:
    """Nobody waits for the warm-up."""
