"""A model, declared: everything a worker, a client and the scaler need to know of it."""

import hashlib
import re
import tomllib
from enum import StrEnum
from pathlib import Path

import msgspec

from headrace_contracts.errors import ENGINE_LOST, ErrorCode, InvalidName, InvalidSpec, JobError
from headrace_contracts.job import MAX_SECONDS, Scalar
from headrace_contracts.limits import Limits
from headrace_contracts.names import check_token
from headrace_contracts.scaling import Scaling
from headrace_contracts.tasks.registry import Task


class EngineKind(StrEnum):
    """The program that runs a model."""

    DIFFUSERS = "diffusers"
    FASTER_WHISPER = "faster_whisper"
    TRANSFORMERS = "transformers"
    SYNTHETIC = "synthetic"


_TASK_OF_ENGINE = {
    EngineKind.DIFFUSERS: Task.TEXT_TO_IMAGE,
    EngineKind.FASTER_WHISPER: Task.SPEECH_TO_TEXT,
    EngineKind.TRANSFORMERS: Task.TEXT_GENERATION,
    EngineKind.SYNTHETIC: Task.SYNTHETIC,
}

# What another attempt may mend, if the operator thinks so: the input is the same each time.
RETRYABLE = tuple(
    code
    for code in ErrorCode
    if code in ENGINE_LOST
    or code
    in (
        ErrorCode.TIMEOUT,
        ErrorCode.MODEL_ERROR,
        ErrorCode.INVALID_OUTPUT,
        ErrorCode.BLOB_FORBIDDEN,
        ErrorCode.INTERNAL,
    )
)

_WEIGHTS = re.compile(r"(path|package|hub):\S+|none")


class Timeouts(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Seconds; each clock has an error code of its own."""

    queue_s: float = MAX_SECONDS
    """Longest wait in the queue of a job that names no `ttl_s`."""
    load_s: float = 600.0
    """Longest start of the engine with its weights in place."""
    run_s: float = 600.0
    """Longest run of one attempt; a job may ask for less."""
    step_s: float = 120.0
    """Longest silence of a running engine before it counts as hung."""
    stop_s: float = 10.0
    """Longest way of a canceled job to its next step; then the engine is killed. A picture's step on a small GPU takes
    a second; a speech engine cannot be stopped inside a window of 30 s of audio."""


class Retry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What happens after a failed attempt: the next one comes after a random delay below a doubling bound."""

    max_attempts: int = 3
    base_delay_s: float = 1.0
    max_delay_s: float = 60.0
    errors: tuple[ErrorCode, ...] = ()
    """The failures that are worth another attempt; none named: those that are called *attempt* in the contract."""

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"`max_attempts` is {self.max_attempts} and must be at least 1")
        for code in self.errors:
            if code not in RETRYABLE:
                raise ValueError(f"`errors` has `{code}`, which no other attempt can mend: use {', '.join(RETRYABLE)}")

    def wants(self, error: JobError) -> bool:
        """Whether a job that failed with `error` is to be tried again."""
        return error.code in self.errors if self.errors else error.retryable


class Recycle(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a healthy engine process is replaced, between two jobs: libraries leak. 0: never for this reason.

    Each process draws its own bounds, up to a tenth lower, so that the workers of a model are not replaced together.
    """

    jobs: int = 0
    """After this many jobs."""
    growth_bytes: int = 0
    """When it has this much more resident memory than when it had loaded the model."""
    age_s: float = 0.0
    """When it has run for so long."""

    def __post_init__(self) -> None:
        for name in ("jobs", "growth_bytes", "age_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)} and must not be negative")


class Batching(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How many jobs an engine runs at once."""

    max_size: int = 1
    max_wait_s: float = 0.0
    """How long the first job of a batch waits for company; engines that batch by token or step never wait."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_size <= 1024:
            raise ValueError(f"`max_size` is {self.max_size} and must be 1 to 1024")


class Resources(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an engine process needs."""

    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; `auto` takes a GPU where there is one."""
    memory_bytes: int = 0
    """Device memory with the model loaded and a batch running; 0: not known."""
    threads: int = 1
    """CPU threads of the engine."""
    host_memory_bytes: int = 0
    """Resident memory at which the engine process is ended as out of memory, before others suffer; 0: no limit."""


class ModelSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One model of the registry."""

    name: str
    task: Task
    engine: EngineKind
    weights: str = "none"
    """`path:<folder>`, `package:<python package>/<path inside>`, `hub:<org>/<name>`, or `none`."""
    version: str = "1"
    description: str = ""
    defaults: dict[str, Scalar] = {}
    """Values for input fields a job leaves out."""
    options: dict[str, Scalar] = {}
    """Settings of the engine, as in `dtype = "float16"`; each engine lists its own."""
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    recycle: Recycle = Recycle()
    batching: Batching = Batching()
    resources: Resources = Resources()
    scaling: Scaling = Scaling()
    price_per_s: float = 0.0
    """Money per second of a worker of this model, in the place of what the settings say; in the operator's currency."""
    allow_remote_code: bool = False
    """Run Python code that comes with the weights. Only for weights you would run as a program."""

    def __post_init__(self) -> None:
        try:
            check_token("model name", self.name)
        except InvalidName as error:
            raise ValueError(str(error)) from error
        if _TASK_OF_ENGINE[self.engine] is not self.task:
            raise ValueError(f"engine `{self.engine}` does `{_TASK_OF_ENGINE[self.engine]}`, not `{self.task}`")
        if not _WEIGHTS.fullmatch(self.weights):
            raise ValueError(f"`weights` is {self.weights!r} and must be path:..., package:..., hub:org/name or none")


def runs_as(spec: ModelSpec) -> str:
    """A digest of what a worker reads of a model: two specs with the same one run the same.

    A worker whose model runs as something else by now is out of date. How many workers there may be, and what people
    are told of the model, is none of a worker's business: it runs on when only that changes.
    """
    read = msgspec.structs.replace(spec, scaling=Scaling(), description="")
    return hashlib.sha256(msgspec.json.encode(read, order="deterministic")).hexdigest()[:16]


def parse_spec(text: str, source: str) -> ModelSpec:
    """Read one model file (TOML).

    Args:
        text: the file's content.
        source: its name, for the error.

    Raises:
        InvalidSpec: names the file, the key and the reason.
    """
    try:
        return msgspec.convert(tomllib.loads(text), ModelSpec)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidSpec(f"{source}: {error}") from error


def load_spec(path: Path) -> ModelSpec:
    """Read a model file; relative `path:` weights are taken from the file's folder.

    Raises:
        InvalidSpec: the file cannot be read, or is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    spec = parse_spec(text, str(path))
    kind, _, where = spec.weights.partition(":")
    if kind == "path":
        spec = msgspec.structs.replace(spec, weights=f"path:{(path.parent / where).resolve()}")
    return spec
