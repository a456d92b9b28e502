"""Submit jobs to the JOBS stream, and take out what nobody will answer for."""

import msgspec
import nats.js.errors

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import BrokerForbidden, JobConflict, MessageTooLarge
from headrace_contracts.job import CancelRequest, JobBody
from headrace_contracts.names import (
    INGRESS_CANCEL,
    Header,
    Lane,
    Stream,
    ingress_subject,
    job_id_of_sequence,
    jobs_subject,
)
from headrace_contracts.trace_context import TraceContext
from headrace_storage.connection import REQUEST_TIMEOUT_S, Connection
from headrace_storage.publishing import DEADLINE_S, publish
from headrace_storage.removing import remove_message
from headrace_storage.trace_headers import trace_headers

CONTRACT_VERSION = "1"

# A job that dies is kept beside the reason, and may be sent again under another id: that must fit a message too.
ROOM_FOR_A_REASON_BYTES = 8 * 1024


class Receipt(msgspec.Struct, frozen=True):
    """The broker has stored the job; it will have exactly one terminal result."""

    job_id: str
    tenant: str
    model: str
    lane: Lane
    sequence: int
    duplicate: bool
    """The same job was already there; it was not stored again."""


async def submit_job(
    connection: Connection,
    tenant: str,
    model: str,
    lane: Lane,
    body: JobBody,
    encoding: Encoding,
    job_id: str | None = None,
    *,
    ingress: bool = False,
    trace: TraceContext | None = None,
) -> Receipt:
    """Publish a job and wait for the broker's receipt.

    Args:
        connection: where to.
        tenant: first token of the subject.
        model: name in the registry; not looked up here.
        lane: priority class.
        body: its `input` must be encoded as `encoding` says.
        encoding: of the message, and so of the result.
        job_id: chosen by the caller; submitting the same job again under it stores nothing. Without one the job is
            named after its place in the stream, and a publish whose receipt is lost is not tried again by itself.
        ingress: publish to the tenant's ingress stream, from where a worker forwards it.
        trace: what its spans are below.

    Raises:
        QueueFull: the stream is at a limit; `BrokerFull`: the broker's storage is.
        MessageTooLarge: the job does not fit one message.
        JobConflict: another job has this id.
        BrokerUnavailable: no receipt; with a `job_id` it is safe to submit again. `BrokerStorageFailing`: the broker
            answers, and stores nothing.
    """
    subject = ingress_subject(tenant, model, lane) if ingress else jobs_subject(tenant, model, lane)
    data = codec.encode(body, encoding)
    most_bytes = connection.max_payload_bytes - ROOM_FOR_A_REASON_BYTES
    if len(data) > most_bytes:
        raise MessageTooLarge(len(data), most_bytes)
    headers = {
        Header.CONTENT_TYPE.value: encoding.value,
        Header.VERSION.value: CONTRACT_VERSION,
        **trace_headers(trace),
    }
    if job_id is not None:
        headers[Header.JOB_ID] = job_id
    # Without an id a second try could store the job twice.
    ack = await publish(connection, subject, data, headers, deadline_s=DEADLINE_S if job_id is not None else 0.0)
    # An ingress stream has jobs of this tenant only, and its client may not look into it.
    if ack.duplicate and job_id is not None and not ingress and await _differs(connection, ack.sequence, subject, data):
        raise JobConflict(job_id)
    return Receipt(job_id or job_id_of_sequence(ack.sequence), tenant, model, lane, ack.sequence, ack.duplicate)


async def submit_cancel(
    connection: Connection, tenant: str, model: str, request: CancelRequest, encoding: Encoding
) -> None:
    """Ask, by way of the tenant's ingress stream, that a job be canceled; jobs before it there are forwarded first.

    Raises:
        QueueFull: the ingress stream is at a limit.
        BrokerUnavailable: no receipt; asking again does no harm.
    """
    subject = ingress_subject(tenant, model, INGRESS_CANCEL)
    headers = {Header.CONTENT_TYPE.value: encoding.value, Header.VERSION.value: CONTRACT_VERSION}
    await publish(connection, subject, codec.encode(request, encoding), headers)


async def _differs(connection: Connection, sequence: int, subject: str, data: bytes) -> bool:
    """Whether the message that was there first is another job; a job that has left the stream cannot be compared.

    A tenant's role sees only the newest message of its own subjects: what is older counts as the same.
    """
    try:
        with connection.errors():
            stored = await connection.js.get_msg(Stream.JOBS, seq=sequence, direct=True)
    except nats.js.errors.NotFoundError:
        return False
    except BrokerForbidden:
        return await _newest_differs(connection, sequence, subject, data)
    return bool(stored.subject != subject or stored.data != data)


async def _newest_differs(connection: Connection, sequence: int, subject: str, data: bytes) -> bool:
    with connection.errors():
        newest = await connection.nc.request(f"$JS.API.DIRECT.GET.{Stream.JOBS}.{subject}", timeout=REQUEST_TIMEOUT_S)
    headers = newest.headers or {}
    return headers.get("Nats-Sequence") == str(sequence) and newest.data != data


async def remove_job(connection: Connection, sequence: int) -> None:
    """Take a message out of JOBS without an answer for it; no error if it is gone."""
    await remove_message(connection, Stream.JOBS, sequence, erase=False)
