"""What a run writes down: one struct per kind of line. Times `at_s` are CLOCK_MONOTONIC, one clock for the machine."""

from datetime import datetime
from enum import StrEnum

import msgspec

from headrace_contracts.tasks.synthetic import SyntheticInput


class ClientRecord(msgspec.Struct, frozen=True, tag_field="what", omit_defaults=True):
    """A line of the client's journal. Written before a request and after its answer."""

    at_s: float
    job_id: str


class Submitting(ClientRecord, frozen=True, tag="submitting"):
    """A job is about to be sent."""

    model: str
    asked: SyntheticInput | None
    """None for a message that is no job on purpose."""
    ttl_s: float | None = None


class Accepted(ClientRecord, frozen=True, tag="accepted"):
    """The broker gave a receipt: from here on the job has to end in exactly one result."""

    duplicate: bool = False


class NotAccepted(ClientRecord, frozen=True, tag="not_accepted"):
    """No receipt. `error` names the exception's class."""

    error: str


class Canceling(ClientRecord, frozen=True, tag="canceling"):
    """A cancel is about to be sent."""


class CancelAnswered(ClientRecord, frozen=True, tag="cancel_answered"):
    """What the client was told: `canceled`, `canceling`, `already <status>`."""

    answer: str


class ResultRead(ClientRecord, frozen=True, tag="result_read"):
    """A result as a client got it."""

    status: str


class BacklogRead(ClientRecord, frozen=True, tag="backlog_read"):
    """What a client was told of a model's queue; `job_id` is empty. Asked from `asked_at_s` to `at_s`."""

    model: str
    jobs: int
    """Waiting and held, all lanes."""
    asked_at_s: float


AnyClientRecord = Submitting | Accepted | NotAccepted | Canceling | CancelAnswered | ResultRead | BacklogRead


class FaultKind(StrEnum):
    """What the nemesis can do."""

    WORKER_KILL = "worker kill -9"
    WORKER_STOP = "worker SIGSTOP past the lease"
    WORKER_TERM = "worker SIGTERM under load"
    ENGINE_KILL = "engine kill -9"
    ENGINE_STOP = "engine SIGSTOP past its step"
    BROKER_KILL = "broker kill -9"
    BROKER_STOP = "broker SIGSTOP past the lease"
    LEADER_KILL = "leader kill -9"
    LINK_RESET = "broker connection reset"
    LINK_SILENT = "broker connection silent"
    LINK_SLOW = "broker connection slow"
    STORE_KILL = "S3 kill -9"
    STORE_OUTAGE = "S3 unreachable"
    STORE_ERRORS = "S3 answers 503"
    STORE_LOST_ANSWERS = "S3 answers lost"


class Fault(msgspec.Struct, frozen=True):
    """One fault, written when it is over."""

    kind: FaultKind
    target: str
    began_s: float
    ended_s: float
    happened: bool
    """Whether its proof was seen: a fault that did not happen proves nothing."""
    proof: str
    pids: tuple[int, ...] = ()
    """The processes it hit, or whose connection it hit: worker and engines."""


class StoredMessage(msgspec.Struct, frozen=True):
    """A message of a stream, as it was read back."""

    at_s: float
    """When it was read."""
    sequence: int
    subject: str
    headers: dict[str, str]
    data: bytes
    stored_at: datetime


class AttemptsSeen(msgspec.Struct, frozen=True):
    """A write to a job's record of attempts, overheard."""

    at_s: float
    subject: str
    data: bytes


class Sample(msgspec.Struct, frozen=True):
    """Memory and files of one worker's supervisor."""

    at_s: float
    pid: int
    rss_bytes: int
    open_files: int


class Blob(msgspec.Struct, frozen=True):
    """One object of the bucket, its body read; `sha256` is ours."""

    key: str
    size_bytes: int
    sha256: str
    stored_at: datetime


class StreamState(msgspec.Struct, frozen=True):
    """The server's counters of a stream."""

    messages: int
    first_sequence: int
    last_sequence: int
    deleted: int


class Final(msgspec.Struct, frozen=True):
    """What was left when all faults were healed and nothing moved any more."""

    drained: bool
    """Whether every accepted job had ended, and been removed, before the deadline."""
    drain_s: float
    results_state: StreamState
    jobs_left: tuple[StoredMessage, ...]
    dead: tuple[StoredMessage, ...]
    attempts: tuple[StoredMessage, ...]
    blobs: tuple[Blob, ...]
    worker_exits: tuple[str, ...]
    """How the workers ended that were asked to."""
    ended_by_themselves: tuple[str, ...] = ()
    """Workers that ended while they served, though nobody had touched them, and how."""
    failed_starts: tuple[str, ...] = ()
    """Workers that ended before they served, as in an outage, and how."""


class Plan(msgspec.Struct, frozen=True):
    """What the checker has to know of how the run was set up."""

    seed: int
    lease_s: float
    max_attempts: int
    outage_delay_s: float
    """For how long a job rests that was given back because of an outage."""
    start_slack_s: float
    """How long after a cancel or an expiry a job that was on its way to the engine may still begin."""
    isolated_models: tuple[str, ...] = ()
    """Models whose jobs kill no engine: nobody in there is anybody's victim."""
