"""A job as a client publishes it, and as a worker reads it."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import InvalidName, UndecodableMessage
from headrace_contracts.names import Header, Lane, check_token, job_id_of_sequence, parse_jobs_subject
from headrace_contracts.trace_context import TraceContext, trace_context

Scalar = str | int | float | bool | None

# A day: beyond it a deadline protects nobody, and leases and results would have to outlive their streams.
MAX_SECONDS = 86_400.0

# The result returns it, so it must leave room there; it is for labels, not for data.
MAX_METADATA_BYTES = 64 * 1024


class JobBody(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The message body. Only `input` is required."""

    input: msgspec.Raw
    """The model's input, still encoded; its schema is in the registry."""
    timeout_s: float | None = None
    """Longest run of one attempt in seconds; the model's own limit if absent or smaller."""
    ttl_s: float | None = None
    """Longest wait in the queue in seconds; then the job ends as `expired`."""
    metadata: dict[str, Scalar] = {}
    """Returned with the result, never read; at most 64 KiB as JSON."""
    batch: str | None = None
    """A name shared by jobs that were submitted together."""
    trace: str | None = None
    """W3C traceparent, for clients that cannot set headers; a header of that name wins."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "ttl_s"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds <= MAX_SECONDS:
                raise ValueError(f"`{name}` is {seconds:g} and must be over 0 and at most {MAX_SECONDS:g}")
        # Encoding costs a microsecond for a few labels, and nothing for most jobs, which have none.
        if self.metadata and (size_bytes := len(msgspec.json.encode(self.metadata))) > MAX_METADATA_BYTES:
            raise ValueError(f"`metadata` takes {size_bytes} bytes as JSON and must take at most {MAX_METADATA_BYTES}")


class Job(msgspec.Struct, frozen=True):
    """What was asked: one decoded message of the JOBS stream."""

    id: str
    tenant: str
    model: str
    lane: Lane
    encoding: Encoding
    body: JobBody
    created_at: datetime
    """When the broker accepted the message."""
    trace: TraceContext | None = None
    """What the submitter's span is; None if nobody traces it."""


def job_id_of(headers: Mapping[str, str] | None, stream_sequence: int) -> str:
    """Id of a job: what its forwarder says, else its Nats-Msg-Id, else its place in the stream.

    Raises:
        InvalidName: the header's value cannot be part of a subject.
    """
    named = codec.header(headers, Header.FORWARDED_ID) or codec.header(headers, Header.JOB_ID)
    return job_id_of_sequence(stream_sequence) if named is None else check_token("job id", named)


def job_id_to_answer_under(headers: Mapping[str, str] | None, stream_sequence: int) -> str:
    """Id of a message that is no valid job: where its own cannot be part of a subject, its place in the stream."""
    try:
        return job_id_of(headers, stream_sequence)
    except InvalidName:
        return job_id_of_sequence(stream_sequence)


def decode_job(
    subject: str, headers: Mapping[str, str] | None, data: bytes, stream_sequence: int, created_at: datetime
) -> Job:
    """Read one message of the JOBS stream.

    Raises:
        UndecodableMessage: subject, id, encoding or body is wrong; the reason names the field.
    """
    try:
        address = parse_jobs_subject(subject)
        job_id = job_id_of(headers, stream_sequence)
    except InvalidName as error:
        raise UndecodableMessage("job", data, str(error)) from error
    encoding = codec.encoding_of(headers, data)
    body = codec.decode(data, JobBody, encoding)
    submitted_at = _submitted_at(headers, created_at)
    trace = _trace(headers, body)
    return Job(job_id, address.tenant, address.model, address.lane, encoding, body, submitted_at, trace)


def _trace(headers: Mapping[str, str] | None, body: JobBody) -> TraceContext | None:
    """The header, else the field of the body; one that is not valid is no reason to refuse a job."""
    named = codec.header(headers, Header.TRACEPARENT)
    if named is None:
        return None if body.trace is None else trace_context(body.trace)
    return trace_context(named, codec.header(headers, Header.TRACESTATE)) or trace_context(body.trace)


def _submitted_at(headers: Mapping[str, str] | None, stored_at: datetime) -> datetime:
    """When the job was accepted: before it was stored in JOBS, if it waited in an ingress stream."""
    said = codec.header(headers, Header.FORWARDED_AT)
    if said is None:
        return stored_at
    try:
        submitted_at = msgspec.convert(said, datetime)
    except msgspec.ValidationError:
        return stored_at
    # Any client can write the header: it can make its own job older, never younger.
    return min(submitted_at, stored_at) if submitted_at.tzinfo is not None else stored_at


class CancelRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of a cancel that goes through an ingress stream, in the encoding that the result is wanted in."""

    job_id: str
    metadata: dict[str, Scalar] = {}
    """The job's, to be repeated in its result."""
