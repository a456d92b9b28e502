"""Every name on the broker, as pure functions: streams, subjects, consumers, buckets, headers.

No other module spells a subject or a stream. A *token* is one dot-separated part of a subject.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from headrace_contracts.errors import InvalidName

DEFAULT_TENANT: Final = "default"
# Stands in DEAD for a tenant or model whose name cannot be part of a subject.
NAMELESS: Final = "nameless"

# 64 keeps the longest subject (four tokens and a prefix) far under the server's control-line limit of 4,096 bytes.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Lane(StrEnum):
    """Priority class of a job; members are in the order in which they are served."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Stream(StrEnum):
    """The JetStream streams."""

    JOBS = "JOBS"
    RESULTS = "RESULTS"
    EVENTS = "EVENTS"
    DEAD = "DEAD"
    ALERTS = "ALERTS"
    LOGS = "LOGS"


class Bucket(StrEnum):
    """The key-value buckets."""

    MODELS = "MODELS"
    WORKERS = "WORKERS"
    ATTEMPTS = "ATTEMPTS"
    LEASES = "LEASES"
    ACCOUNTS = "ACCOUNTS"


EVERY_STREAM: Final = (*Stream, *(f"KV_{bucket}" for bucket in Bucket))
"""Those behind the buckets too."""

BLOB_BUCKET: Final = "headrace"
BLOB_STREAM: Final = f"OBJ_{BLOB_BUCKET}"
"""Made when the object store is first opened, and not at all where blobs are in S3."""
INPUTS_FOLDER: Final = "inputs"

# The broker itself says there that a job was stored: subject and headers, without the body. For whoever starts workers.
ARRIVALS_FROM: Final = "jobs.*.*.*"
ARRIVALS_TO: Final = "arrivals.{{wildcard(2)}}.{{wildcard(3)}}"
ARRIVALS: Final = "arrivals.*.*"

INGRESS_PREFIX: Final = "INGRESS_"
INGRESS_CONSUMER: Final = "forward"
# Stands in the place of a lane; no lane is called so.
INGRESS_CANCEL: Final = "cancel"


class Header(StrEnum):
    """The NATS headers Headrace reads or writes; clients may spell them in any case."""

    CONTENT_TYPE = "Content-Type"
    JOB_ID = "Nats-Msg-Id"
    FORWARDED_ID = "Headrace-Job-Id"
    """Id of a job that came through an ingress stream: its Nats-Msg-Id is the forwarder's."""
    FORWARDED_AT = "Headrace-Submitted-At"
    """When such a job was stored there (RFC 3339): its waiting counts from then."""
    TRACEPARENT = "traceparent"
    TRACESTATE = "tracestate"
    VERSION = "Headrace-Version"
    REDRIVE_OF = "Headrace-Redrive-Of"
    """Of a job that was a dead letter: the id it had then."""


class DeadHeader(StrEnum):
    """What a worker writes beside the message it keeps in DEAD; a client's own headers of these names are dropped."""

    REASON = "Headrace-Reason"
    SUBJECT = "Headrace-Subject"
    """Where the message was published."""
    LAST_LINES = "Headrace-Last-Lines"
    """What the engine wrote last on its standard error, lines joined by ` | `."""
    LEFT_OUT_BYTES = "Headrace-Left-Out-Bytes"
    """Size of a body that did not fit beside the rest; the message is kept without it."""


class JobAddress(msgspec.Struct, frozen=True):
    """Where a job was published: the three tokens behind `jobs.`."""

    tenant: str
    model: str
    lane: Lane


def check_token(kind: str, value: str) -> str:
    """Return `value` if it can be one token of a subject.

    Raises:
        InvalidName: it is empty, longer than 64 characters, or has other characters than `A-Za-z0-9_-`.
    """
    if not is_token(value):
        raise InvalidName(kind, value)
    return value


def is_token(value: str) -> bool:
    """Whether `value` can be one token of a subject."""
    return _TOKEN.fullmatch(value) is not None


def jobs_subject(tenant: str, model: str, lane: Lane) -> str:
    """Subject a job is published to."""
    return f"jobs.{check_token('tenant', tenant)}.{check_token('model', model)}.{lane}"


def parse_jobs_subject(subject: str) -> JobAddress:
    """Read the address back out of a subject of the JOBS stream.

    Raises:
        InvalidName: a part is no valid token, or the lane is unknown.
    """
    parts = subject.split(".")
    if len(parts) != 4 or parts[0] != "jobs":
        raise InvalidName("job subject", subject, "jobs.<tenant>.<model>.<lane>")
    _, tenant, model, lane = parts
    if lane not in set(Lane):
        raise InvalidName("lane", lane, " or ".join(Lane))
    return JobAddress(check_token("tenant", tenant), check_token("model", model), Lane(lane))


def job_id_of_sequence(stream_sequence: int) -> str:
    """Id of a job that was published without one: any client can compute it from its PubAck."""
    return f"seq-{stream_sequence}"


def results_subject(tenant: str, model: str, job_id: str) -> str:
    """Subject of the one terminal result of a job."""
    return f"results.{_job(tenant, model, job_id)}"


def events_subject(tenant: str, model: str, job_id: str, event: str) -> str:
    """Subject of one kind of event of a job; `>` as `event` subscribes to all of them."""
    return f"events.{_job(tenant, model, job_id)}.{event}"


def logs_subject(tenant: str, model: str, job_id: str) -> str:
    """Subject of the lines that workers log about a job."""
    return f"logs.{_job(tenant, model, job_id)}"


def dead_subject(tenant: str, model: str, job_id: str) -> str:
    """Subject that keeps the original message of a job that could not be run."""
    return f"dead.{_job(tenant, model, job_id)}"


def cancel_subject(tenant: str, model: str, job_id: str) -> str:
    """Core subject that tells the worker of a running job to stop it."""
    return f"control.cancel.{_job(tenant, model, job_id)}"


def cancel_subjects_of_model(model: str) -> str:
    """Wildcard over the cancels of all jobs of one model."""
    return f"control.cancel.*.{check_token('model', model)}.*"


def drain_subject(worker_id: str) -> str:
    """Core subject on which a worker is asked to drain."""
    return f"control.drain.{check_token('worker id', worker_id)}"


def alert_subject(kind: str, model: str) -> str:
    """Subject of what the scaler tells of a model: `backlog`, `decision` or `cold_start`."""
    return f"alerts.{kind}.{check_token('model', model)}"


def alert_subjects(kind: str) -> str:
    """Wildcard over what the scaler tells of one kind, of all models."""
    return f"alerts.{kind}.*"


def job_id_of_subject(subject: str) -> str:
    """The job id token of a result, event, dead or cancel subject."""
    parts = subject.split(".")
    return parts[4] if parts[0] == "control" else parts[3]


def ingress_stream(tenant: str) -> str:
    """Stream in which an untrusted tenant's jobs wait to be forwarded to JOBS."""
    return f"{INGRESS_PREFIX}{check_token('tenant', tenant)}"


def ingress_subject(tenant: str, model: str, lane: str) -> str:
    """Subject an untrusted tenant publishes a job to; INGRESS_CANCEL as `lane` asks for a cancel."""
    return f"ingress.{check_token('tenant', tenant)}.{check_token('model', model)}.{check_token('lane', lane)}"


def consumer_name(model: str, lane: Lane) -> str:
    """Durable pull consumer of one model and lane on JOBS."""
    return f"{check_token('model', model)}-{lane}"


def consumer_filter(model: str, lane: Lane) -> str:
    """Filter of that consumer: all tenants."""
    return f"jobs.*.{check_token('model', model)}.{lane}"


def attempts_key(tenant: str, model: str, job_id: str) -> str:
    """Key of a job's record in the ATTEMPTS bucket."""
    return _job(tenant, model, job_id)


def account_key(model: str, worker_id: str, hour: datetime) -> str:
    """Key of one hour of a worker in the ACCOUNTS bucket; `hour` is in UTC."""
    return f"{check_token('model', model)}.{check_token('worker id', worker_id)}.{hour:%Y%m%d%H}"


def artifact_prefix(tenant: str, model: str, job_id: str, attempt: str) -> str:
    """Blob keys of one attempt start so; an attempt that loses can never overwrite the one that wins."""
    return f"{_job(tenant, model, job_id).replace('.', '/')}/{check_token('attempt', attempt)}/"


def upload_key(tenant: str, sha256: str) -> str:
    """Blob key of a file that a client uploads as input: named by its content, so an upload can be repeated."""
    return f"{check_token('tenant', tenant)}/{INPUTS_FOLDER}/{check_token('sha256', sha256)}"


def _job(tenant: str, model: str, job_id: str) -> str:
    return f"{check_token('tenant', tenant)}.{check_token('model', model)}.{check_token('job id', job_id)}"
