"""How a job ended: the one message on its results subject."""

from datetime import datetime
from enum import StrEnum

import msgspec

from headrace_contracts.errors import ErrorCode, Fault
from headrace_contracts.file import Artifact
from headrace_contracts.job import Scalar


class Status(StrEnum):
    """The four ends of a job."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


class ResultError(msgspec.Struct, frozen=True):
    """Why a job did not succeed."""

    code: ErrorCode
    message: str
    fault: Fault
    retryable: bool


class Timings(msgspec.Struct, frozen=True):
    """Where the time of the attempt that ended the job went, in seconds."""

    queued_s: float = 0.0
    """Stored by the broker until a worker took it (with all earlier attempts)."""
    load_s: float = 0.0
    """Waited for the model to be loaded."""
    fetch_s: float = 0.0
    """Input files fetched and checked."""
    run_s: float = 0.0
    """In the engine, start to last step."""
    store_s: float = 0.0
    """Artifacts stored and checked."""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the job used; fields that do not apply are absent."""

    engine_s: float = 0.0
    """Seconds of a worker that all known runs of the job took: with k jobs in the engine, a k-th of each moment."""
    gpu_s: float = 0.0
    """The same, where the engine had a GPU."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    audio_s: float | None = None
    images: int | None = None
    cost: float | None = None
    """Those seconds times the price of the worker, in the operator's currency."""


class Result(msgspec.Struct, frozen=True):
    """The terminal result; published once per job, never changed."""

    id: str
    model: str
    version: str
    status: Status
    output: msgspec.Raw
    """The task's output, in the encoding of the result; null unless it succeeded."""
    attempts: int
    """Attempts begun, this one included; 0 if no worker ever ran the job."""
    created_at: datetime
    completed_at: datetime
    started_at: datetime | None = None
    worker: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    error: ResultError | None = None
    timings: Timings = Timings()
    usage: Usage = Usage()
    metadata: dict[str, Scalar] = {}
