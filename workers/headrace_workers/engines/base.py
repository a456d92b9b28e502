"""What an engine is: it takes work in, and every `step` advances all of it.

The engine process calls, in one thread:  load -> warm_up -> (admit* -> step)* . An engine decides itself what a
step is: a token of every running text, one batch of pictures, one window of a recording. Long steps ask
`sink.canceled` on the way.
"""

from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from headrace_contracts.errors import JobError
from headrace_contracts.model import ModelSpec
from headrace_contracts.result import Usage
from headrace_contracts.tasks.registry import TaskInput, TaskOutput
from headrace_workers.frames import OutFile

InputT = TypeVar("InputT", bound=TaskInput)


class DeviceError(RuntimeError):
    """The device cannot be used any more by this process; only a new process may have it back."""


class Work(msgspec.Struct, Generic[InputT], frozen=True):
    """One run of a job, as an engine sees it."""

    run_id: str
    attempt: int
    input: InputT
    """Model defaults applied, limits checked."""
    files: dict[str, Path]
    """Input field to local file: what a recording was decoded to, never the bytes that were sent."""
    out_dir: Path
    """A folder for the files the job makes; what else is in it starts with a dot."""


class Finished(msgspec.Struct, frozen=True):
    """What a job that succeeded gives back."""

    output: TaskOutput
    files: tuple[OutFile, ...] = ()
    usage: Usage = Usage()


class Sink(Protocol):
    """Where an engine reports. May be called from any thread of the engine process."""

    def started(self, run_id: str) -> None:
        """The job's first step begins now."""
        ...

    def progress(self, run_id: str, step: float, total: float) -> None:
        """`step` of `total` are done."""
        ...

    def chunk(self, run_id: str, text: str) -> None:
        """The next piece of streamed text; the pieces joined are the output's text."""
        ...

    def finished(self, run_id: str, result: Finished) -> None:
        """The job succeeded; its files are on disk."""
        ...

    def failed(self, run_id: str, error: JobError) -> None:
        """The job failed; the engine can go on."""
        ...

    def canceled(self, run_id: str) -> bool:
        """Whether the job should stop: ask between the steps of a long call, then just drop the job."""
        ...


class Engine(Protocol[InputT]):
    """Runs jobs of one model."""

    def load(self, spec: ModelSpec, weights: Path | None, sink: Sink) -> str:
        """Load the weights, and return the device in use (`cpu`, `cuda:0`).

        Any exception means that the model cannot be loaded.
        """
        ...

    def warm_up(self) -> None:
        """Run the model once on as little as it takes: what has loaded and cannot compute fails here.

        A first job waits for it, so it costs little more than it saves. Any exception is one of `load`.
        """
        ...

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do."""
        ...

    def admit(self, work: Work[InputT]) -> None:
        """Take a job in; at most the spec's `batching.max_size` are in at once.

        Raises:
            JobError: the job cannot be run (a recording that is none, a prompt longer than the context).
        """
        ...

    def step(self) -> None:
        """Advance every job that was taken in, reporting to the sink.

        An exception fails all jobs that are in, and the process is started again: the device may be in any state.
        """
        ...

    def drop(self, run_id: str) -> None:
        """Forget a job, if it is in; nothing is reported for it any more."""
        ...
