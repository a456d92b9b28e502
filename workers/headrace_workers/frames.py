"""What supervisor and engine process say to each other: MessagePack frames behind a 4-byte big-endian length.

Both ends are the same version of the same package on the same machine, so the frames carry no version.
"""

import struct

import msgspec

from headrace_contracts.errors import ErrorCode, Fault, JobError, Permanent, Retryable
from headrace_contracts.model import ModelSpec
from headrace_contracts.result import Usage

LENGTH = struct.Struct(">I")

# Frames carry text and paths, never media; a longer one is a bug, and reading it would take the supervisor's memory.
MAX_FRAME_BYTES = 64 * 1024 * 1024


class Frame(msgspec.Struct, frozen=True, tag_field="frame"):
    """Common to all frames."""


class Load(Frame, frozen=True, tag="load"):
    """Load the model; `weights` is a local folder, ready to load."""

    spec: ModelSpec
    weights: str | None
    ordered: float
    """When the process was ordered, on the machine's monotonic clock."""


class Run(Frame, frozen=True, tag="run"):
    """Run a job. `run_id` names this run of it, here and in every other frame; job ids are not unique among tenants.

    `input` is the task's input as MessagePack, defaults applied, checked against the limits.
    """

    run_id: str
    attempt: int
    input: msgspec.Raw
    files: dict[str, str]
    """Input field to local path of the file, decoded."""
    out_dir: str
    """A folder for artifacts; what else is in it starts with a dot."""


class Cancel(Frame, frozen=True, tag="cancel"):
    """Stop a job at its next step; answered by `Canceled` unless it just ended."""

    run_id: str


class Ping(Frame, frozen=True, tag="ping"):
    """Answer with `Pong`: an engine that has nothing to do can hang as well."""


class Ready(Frame, frozen=True, tag="ready"):
    """The model is loaded and has run once."""

    device: str
    engine_s: float
    import_s: float
    load_s: float
    warm_up_s: float
    """The parts of the start, as in `ColdStart`."""


class LoadFailed(Frame, frozen=True, tag="load_failed"):
    """The model cannot be loaded; the process exits."""

    message: str


class Pong(Frame, frozen=True, tag="pong"):
    """The engine's loop goes round."""


class Started(Frame, frozen=True, tag="started"):
    """The job is in the running batch."""

    run_id: str


class Progress(Frame, frozen=True, tag="progress"):
    """`step` of `total` are done."""

    run_id: str
    step: float
    total: float


class Chunk(Frame, frozen=True, tag="chunk"):
    """The next piece of text."""

    run_id: str
    text: str


class OutFile(msgspec.Struct, frozen=True):
    """A file the engine wrote below the job's `out_dir`."""

    name: str
    content_type: str


class Done(Frame, frozen=True, tag="done"):
    """The job succeeded. `output` is the task's output as MessagePack."""

    run_id: str
    output: msgspec.Raw
    files: tuple[OutFile, ...]
    usage: Usage
    run_s: float


class Failed(Frame, frozen=True, tag="failed"):
    """The job failed."""

    run_id: str
    code: ErrorCode
    message: str
    fault: Fault
    retryable: bool
    shared: bool = False
    """The engine failed with several jobs in it, and cannot say which of them did it."""

    def as_error(self) -> JobError:
        """The exception this frame stands for."""
        kind = Retryable if self.retryable else Permanent
        return kind(self.code, self.message, self.fault)


class Canceled(Frame, frozen=True, tag="canceled"):
    """The job was stopped before its end."""

    run_id: str


ToEngine = Load | Run | Cancel | Ping
OfRun = Started | Progress | Chunk | Done | Failed | Canceled
FromEngine = Ready | LoadFailed | Pong | OfRun


def pack(frame: Frame) -> bytes:
    """A frame as it goes over the socket."""
    body = msgspec.msgpack.encode(frame)
    return LENGTH.pack(len(body)) + body
