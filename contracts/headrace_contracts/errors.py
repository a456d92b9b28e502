"""What can go wrong, once: the exceptions a caller may catch and the error codes a result may carry.

    HeadraceError
    ├── SettingsError            a configuration file or environment variable is wrong
    ├── InvalidName              a tenant, model, lane or job id cannot be part of a subject
    ├── UndecodableMessage       bytes that are no job, result or event
    ├── InvalidSpec              a model file is wrong
    ├── JobError                 ends an attempt of a job; carries what the result will say
    │   ├── InvalidInput         a field of the input is wrong (fault: input, never retried)
    │   ├── Retryable            may succeed if run again (worker or platform at fault)
    │   └── Permanent            will fail again
    ├── UnknownModel             no such model in the registry
    ├── JobConflict              the job id is already taken by another job
    ├── QueueFull                the broker refused the message: its stream is at a limit
    │   └── BrokerFull           all streams together are at the broker's storage limit
    ├── MessageTooLarge          a job does not fit one message
    ├── BrokerUnavailable        no answer from NATS, or it refused the connection
    │   ├── CredentialsRefused   it does not know the keys that we came with
    │   ├── BrokerForbidden      the role we connected with may not do this
    │   └── BrokerStorageFailing it answers, and stores nothing: its disk is full or broken
    ├── TopologyDrift            a stream or consumer exists with other settings than ours
    ├── BrokerTooOld             the broker's version cannot do what our streams need
    ├── BrokerTooSmall           there is no room on the broker for a stream of ours
    ├── UnsafeBroker             the broker could lose or drop accepted jobs
    ├── NoDeadLetter             no dead letter of this id
    ├── ResultTimeout            no result arrived in the time the caller gave
    ├── JobFailed                the job ended otherwise than `succeeded` (raised by `headrace.run`)
    ├── BlobError
    │   ├── BlobNotFound         no such key
    │   ├── BlobMismatch         other bytes than the reference promised
    │   ├── BlobForbidden        the store does not let us reach this blob
    │   │   └── BlobKeyRefused   the store refused our credentials
    │   ├── BlobUnavailable      the store did not answer
    │   └── PresignUnsupported   this store has no URLs of its own
    └── WeightsError             a model's weights cannot be had or are not what they should be

Every error builds its own sentence: what was wrong, where, and what to do.
"""

from enum import StrEnum

from headrace_contracts.fill import Fill, FullLimit


class Fault(StrEnum):
    """Who has to change something before the job can succeed."""

    INPUT = "input"
    MODEL = "model"
    WORKER = "worker"
    PLATFORM = "platform"


class ErrorCode(StrEnum):
    """Stable words for programs; the message beside them is for people."""

    INVALID_INPUT = "invalid_input"
    UNDECODABLE = "undecodable"
    UNKNOWN_MODEL = "unknown_model"
    BLOB_MISSING = "blob_missing"
    BLOB_MISMATCH = "blob_mismatch"
    BLOB_FORBIDDEN = "blob_forbidden"
    TIMEOUT = "timeout"
    TTL_EXPIRED = "ttl_expired"
    CANCELED = "canceled"
    MODEL_ERROR = "model_error"
    INVALID_OUTPUT = "invalid_output"
    OUT_OF_MEMORY = "out_of_memory"
    OOM_KILLED = "oom_killed"
    DEVICE_ERROR = "device_error"
    ENGINE_CRASHED = "engine_crashed"
    ENGINE_HUNG = "engine_hung"
    WORKER_LOST = "worker_lost"
    POISONED = "poisoned"
    INTERNAL = "internal"


# Failures that cost an engine process, or the whole worker. A job that had one runs alone from then on.
ENGINE_LOST = frozenset(
    {
        ErrorCode.OUT_OF_MEMORY,
        ErrorCode.OOM_KILLED,
        ErrorCode.DEVICE_ERROR,
        ErrorCode.ENGINE_CRASHED,
        ErrorCode.ENGINE_HUNG,
        ErrorCode.WORKER_LOST,
    }
)
# A reason may quote a name out of a message of 8 MiB; the result that carries it has to fit a message itself.
MAX_REASON_CHARS = 1000


class HeadraceError(Exception):
    """Base of every error Headrace raises on purpose."""


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_REASON_CHARS else f"{text[:MAX_REASON_CHARS]}..."


class SettingsError(HeadraceError):
    """A setting is wrong; the message names the file or variable."""


class InvalidName(HeadraceError):
    """A name cannot be part of a subject."""

    def __init__(self, kind: str, value: str, allowed: str = "1 to 64 of the characters A-Z a-z 0-9 _ -") -> None:
        self.kind = kind
        self.value = value
        super().__init__(f"{kind} {value[:80]!r} is not valid: use {allowed}")


class UndecodableMessage(HeadraceError):
    """Bytes that are no message of ours; keeps them for the dead-letter stream."""

    def __init__(self, what: str, data: bytes, reason: str) -> None:
        self.what = what
        self.data = data
        self.reason = _shortened(reason)
        super().__init__(f"not a valid {what}: {self.reason}")


class InvalidSpec(HeadraceError):
    """A model file is wrong; the message names the file, the key and the reason."""


class JobError(HeadraceError):
    """Ends an attempt. Its fields become the `error` of the result."""

    retryable = False

    def __init__(self, code: ErrorCode, message: str, fault: Fault) -> None:
        self.code = code
        self.message = message
        self.fault = fault
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.code, self.message, self.fault))


class Retryable(JobError):
    """May succeed if the job is run again."""

    retryable = True


class Permanent(JobError):
    """Will fail again, so it is not run again."""


class InvalidInput(Permanent):
    """A field of the job's input is wrong.

    `field` is its path from the body, as in `input.steps`.
    """

    def __init__(self, field: str, problem: str) -> None:
        self.field = _shortened(field)
        self.problem = _shortened(problem)
        super().__init__(ErrorCode.INVALID_INPUT, f"{self.field}: {self.problem}", Fault.INPUT)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.field, self.problem))


class UnknownModel(HeadraceError):
    """No such model in the registry."""

    def __init__(self, model: str, known: tuple[str, ...] = ()) -> None:
        self.model = model
        self.known = known
        there = f"; the registry has {', '.join(known)}" if known else "; the registry is empty"
        super().__init__(f"unknown model {model!r}{there} (see `headrace models`)")


class JobConflict(HeadraceError):
    """The job id is taken by a job that is not this one."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"job id {job_id!r} already belongs to another job: choose another id, or none")


class QueueFull(HeadraceError):
    """The broker refused a message because its stream is at a limit; nothing was lost, try again later.

    `fill` has the numbers, or None where these credentials may not ask for them.
    """

    def __init__(self, subject: str, reason: str, fill: Fill | None = None) -> None:
        self.subject = subject
        self.reason = reason
        self.fill = fill
        super().__init__(
            f"the queue behind {subject} is full ({reason}{_numbers(fill)}): nothing was stored; {_way_out(fill)}"
        )


def _numbers(fill: Fill | None) -> str:
    if fill is None:
        return ""
    unit = "bytes" if fill.limit is FullLimit.BYTES else "messages"
    return f"; stream {fill.stream}, {fill.limit}: {fill.used} of {fill.allowed} {unit}"


def _way_out(fill: Fill | None) -> str:
    if fill is not None and fill.limit is FullLimit.MESSAGES_PER_SUBJECT:
        return "try again when some of these jobs have ended, or start more workers; other subjects still have room"
    return "try again when it has drained, or start more workers"


class BrokerFull(QueueFull):
    """All streams together are at the storage limit of the broker, or of our account; nothing was lost.

    `used_bytes` is what our account stores; None where it cannot be asked.
    """

    def __init__(self, subject: str, reason: str, used_bytes: int | None = None) -> None:
        self.subject = subject
        self.reason = reason
        self.fill = None
        self.used_bytes = used_bytes
        used = "" if used_bytes is None else f"; {used_bytes} bytes are in use"
        HeadraceError.__init__(
            self,
            f"the broker's storage limit is reached ({reason}{used}): {subject} takes nothing more and nothing was "
            "stored; remove what is not needed, or raise `max_file_store` of the server, then try again",
        )


class MessageTooLarge(HeadraceError):
    """A job does not fit one message."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        super().__init__(
            f"the job is {size_bytes} bytes and the broker takes {limit_bytes}: "
            'upload large files and refer to them by {"$blob": ...} (the SDK and the CLI do so)'
        )


class BrokerUnavailable(HeadraceError):
    """NATS did not answer, or refused us."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(
            f"no NATS server with JetStream at {url} ({reason}): start one with `headrace up`, or set NATS_URL"
        )


class CredentialsRefused(BrokerUnavailable):
    """The broker is there, and does not know the credentials that we came with."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        HeadraceError.__init__(
            self,
            f"the broker at {url} refuses these credentials ({reason}): use those that it was set up with, as "
            "`headrace auth init` writes them (HEADRACE_CONFIG, or NATS_NKEY, NATS_CREDS, NATS_USER ...); it reads new "
            "ones when it is restarted",
        )


class BrokerForbidden(BrokerUnavailable):
    """The broker is there, and does not let our role do this: asking again does not help."""

    def __init__(self, url: str, action: str, subject: str) -> None:
        self.url = url
        self.reason = f"this role may not {action} {subject}"
        self.action = action
        self.subject = subject
        hint = (
            "answers come to the inbox of the role: set NATS_INBOX_PREFIX (`nats.inbox_prefix`) to its own"
            if action == "subscribe to"
            else "use the settings of a role that may, as `headrace auth init` writes them"
        )
        HeadraceError.__init__(self, f"the broker at {url} refused: {self.reason}; {hint}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.url, self.action, self.subject))


class BrokerStorageFailing(BrokerUnavailable):
    """NATS answers and the stream has a leader, yet nothing is stored: its disk is full or failing.

    A server whose disk was full stores nothing after there is room again, until it is restarted.
    """

    def __init__(self, url: str, reason: str, stream: str) -> None:
        self.url = url
        self.reason = reason
        self.stream = stream
        HeadraceError.__init__(
            self,
            f"the NATS server at {url} answers, but stream {stream} stores nothing ({reason}): its disk is probably "
            "full or broken. Make room, then restart nats-server: it does not recover by itself. Whether the message "
            "was stored is not known; with the same id it is safe to send again",
        )


class TopologyDrift(HeadraceError):
    """Something on the broker has other settings than Headrace needs."""

    def __init__(self, what: str, differences: tuple[str, ...]) -> None:
        self.what = what
        self.differences = differences
        super().__init__(
            f"{what} exists with other settings: {'; '.join(differences)}. "
            "Change it to these values, or remove it when it is empty and let Headrace create it"
        )


class BrokerTooOld(HeadraceError):
    """The broker's version cannot do what our streams need: none was made."""

    def __init__(self, url: str, version: str, needed: str) -> None:
        self.url = url
        self.version = version
        self.needed = needed
        super().__init__(
            f"the broker at {url} is nats-server {version}, and {needed} or later is needed: upgrade it "
            "(`headrace doctor` says what else)"
        )


class BrokerTooSmall(HeadraceError):
    """A stream may grow to more than the broker, or our account, has room for: it was not made."""

    def __init__(self, what: str, size_bytes: int, reason: str) -> None:
        self.what = what
        self.size_bytes = size_bytes
        super().__init__(
            f"the broker has no room for {what}, which may grow to {size_bytes >> 20} MiB ({reason}): raise "
            "`max_file_store` (or `max_memory_store`) of the server or the limit of the account, or free its disk: "
            "the usual limit is a share of what is free when the server starts"
        )


class UnsafeBroker(HeadraceError):
    """The broker could lose, drop or hide accepted jobs."""

    def __init__(self, url: str, dangers: tuple[str, ...]) -> None:
        self.url = url
        self.dangers = dangers
        super().__init__(
            f"the broker at {url} is not safe for jobs: {'; '.join(dangers)} (`headrace doctor` says more). "
            "To run on it all the same: --allow-unsafe-broker, or HEADRACE_ALLOW_UNSAFE_BROKER=1"
        )


class NoDeadLetter(HeadraceError):
    """Nothing in DEAD has this id."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"there is no dead letter of a job {job_id!r}: `headrace dead ls` lists them; one is kept for 30 days"
        )


class ResultTimeout(HeadraceError):
    """No result in the time the caller was ready to wait; the job itself goes on."""

    def __init__(self, job_id: str, waited_s: float) -> None:
        self.job_id = job_id
        self.waited_s = waited_s
        super().__init__(
            f"no result of job {job_id} after {waited_s:g} s; it goes on: `headrace result {job_id}` waits again"
        )


class JobFailed(HeadraceError):
    """A job ended otherwise than `succeeded`."""

    def __init__(self, job_id: str, status: str, code: str, message: str) -> None:
        self.job_id = job_id
        self.status = status
        self.code = code
        self.message = message
        super().__init__(f"job {job_id} {status}: {message} [{code}]")


class BlobError(HeadraceError):
    """The blob store could not do what was asked."""

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(f"blob {key!r}: {reason}")


class BlobNotFound(BlobError):
    """No such key."""

    def __init__(self, key: str) -> None:
        super().__init__(key, "there is no such blob")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.key,))


class BlobMismatch(BlobError):
    """Other bytes than the reference promised."""


class BlobForbidden(BlobError):
    """The store does not let us reach this blob."""


class BlobKeyRefused(BlobForbidden):
    """The store refused our credentials, before any blob was asked for."""

    def __init__(self, url: str, access_key_id: str, reason: str) -> None:
        self.url = url
        self.access_key_id = access_key_id
        self.key, self.reason = "", reason
        HeadraceError.__init__(
            self,
            f"the S3 server at {url} refuses the key {access_key_id!r} ({reason}): check `access_key_id`, "
            "`secret_access_key` and `bucket` in [s3] (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, S3_BUCKET)",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.url, self.access_key_id, self.reason))


class BlobUnavailable(BlobError):
    """The store did not answer; worth another try."""


class PresignUnsupported(BlobError):
    """This store has no URLs of its own."""


class WeightsError(HeadraceError):
    """Weights cannot be had, or are not what they should be."""
