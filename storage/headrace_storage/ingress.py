"""Ingress streams: where jobs of untrusted tenants wait until a worker forwards them to JOBS.

Headers of a message act on the whole stream it is published to: a `Nats-Msg-Id` that another tenant is about to use
drops that tenant's job as a duplicate. So an untrusted tenant publishes to a stream of its own, with limits of its own.
Sourcing that stream into JOBS would be no way out: the broker holds the ids of sourced messages against all others.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import api

from headrace_contracts import codec
from headrace_contracts.errors import TopologyDrift
from headrace_contracts.names import (
    INGRESS_CANCEL,
    INGRESS_CONSUMER,
    INGRESS_PREFIX,
    Header,
    Stream,
    ingress_stream,
    is_token,
    job_id_of_sequence,
)
from headrace_storage.auth.plan import IngressLimits
from headrace_storage.connection import Connection
from headrace_storage.publishing import publish

# A forward takes milliseconds. Longer delays the jobs behind it when a worker dies in the middle of one.
ACK_WAIT_S = 10.0
WAIT_EXPIRES_S = 20.0
# The queue may be full, which is the ingress stream's to wait for: a worker asks again soon.
FORWARD_DEADLINE_S = 3.0

# Everything else a client sends is left behind: the broker acts on headers, those of versions to come included.
_KEPT_HEADERS = (Header.CONTENT_TYPE, Header.TRACEPARENT, Header.TRACESTATE, Header.VERSION)
# What W3C asks everybody to pass on of a tracestate.
_LONGEST_HEADER = 512


class Arrival(msgspec.Struct, frozen=True):
    """A message of an ingress stream, delivered to be forwarded."""

    subject: str
    headers: Mapping[str, str]
    data: bytes
    sequence: int
    stored_at: datetime
    stored_ns: str
    """The same, as the server counts it."""
    reply: str

    @property
    def tenant(self) -> str:
        """Whose it is: the broker lets only this tenant publish here."""
        return self.subject.split(".")[1]

    @property
    def model(self) -> str:
        """Third token of the subject; any text without a dot."""
        return self.subject.split(".")[2]

    @property
    def is_cancel(self) -> bool:
        """Whether it asks for a cancel rather than a job."""
        return self.subject.split(".")[3] == INGRESS_CANCEL

    @property
    def job_id(self) -> str:
        """Its own Nats-Msg-Id, or its place in the ingress stream; an id that can be no token counts as none."""
        named = codec.header(self.headers, Header.JOB_ID)
        return named if named is not None and is_token(named) else job_id_of_sequence(self.sequence)


async def ensure_ingress(connection: Connection, tenant: str, limits: IngressLimits) -> None:
    """Create a tenant's ingress stream and its consumer, or give them these limits. An admin's step.

    Raises:
        TopologyDrift: a stream of that name exists that cannot be changed to it.
    """
    name = ingress_stream(tenant)
    with connection.errors():
        jobs = (await connection.js.stream_info(Stream.JOBS)).config
    stream = api.StreamConfig(
        name=name,
        subjects=[f"ingress.{tenant}.*.*"],
        retention=api.RetentionPolicy.WORK_QUEUE,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        max_msgs=limits.max_jobs,
        max_bytes=limits.max_bytes,
        max_msg_size=limits.max_job_bytes,
        duplicate_window=120.0,
        # As safe as the queue: its receipt means as much.
        num_replicas=jobs.num_replicas,
    )
    consumer = api.ConsumerConfig(
        name=INGRESS_CONSUMER,
        durable_name=INGRESS_CONSUMER,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_deliver=-1,
        # One after the other, whichever worker asks: a cancel never overtakes its job.
        max_ack_pending=1,
    )
    with connection.errors():
        try:
            try:
                await connection.js.stream_info(name)
            except nats.js.errors.NotFoundError:
                await connection.js.add_stream(stream)
            else:
                await connection.js.update_stream(stream)
            await connection.js.add_consumer(name, consumer)
        except nats.js.errors.BadRequestError as error:
            raise TopologyDrift(f"stream {name}", (str(error.description),)) from error


async def ingress_streams(connection: Connection) -> list[str]:
    """Names of the ingress streams there are."""
    names: list[str] = []
    while True:
        request = {"subject": "ingress.>", "offset": len(names)}
        answer = await connection.api("STREAM.NAMES", msgspec.json.encode(request))
        page = answer.get("streams") or []
        names += page
        if not page or len(names) >= int(answer["total"]):
            return [name for name in names if name.startswith(INGRESS_PREFIX)]


async def next_arrival(connection: Connection, stream: str) -> Arrival | None:
    """The next message to forward, waited for a while; None if none came, or the stream is gone.

    Raises:
        BrokerUnavailable: the connection is down.
    """
    request = {"batch": 1, "expires": round(WAIT_EXPIRES_S * 1e9)}
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{INGRESS_CONSUMER}"
    body = msgspec.json.encode(request)
    with connection.errors():
        # In an inbox of its own: a stored message comes under its own subject, which says nothing of who asked.
        message = await connection.nc.request(subject, body, timeout=WAIT_EXPIRES_S + 5, old_style=True)
    return None if "Status" in (message.headers or {}) else _arrival(message)


async def forward(connection: Connection, arrival: Arrival) -> None:
    """Store a job in JOBS, under the headers that a worker needs and no other, then remove it from its ingress stream.

    Forwarding it again, after a crash in between, stores nothing.

    Raises:
        QueueFull: JOBS takes no more; the job stays where it is.
        BrokerUnavailable: no answer.
    """
    _, tenant, model, lane = arrival.subject.split(".")
    kept = {name.value: codec.header(arrival.headers, name) for name in _KEPT_HEADERS}
    headers = {name: value for name, value in kept.items() if value is not None and _plain(value)}
    headers |= {
        # The moment in nanoseconds makes it an id that nobody can have used before.
        Header.JOB_ID.value: f"ingress.{tenant}.{arrival.sequence}.{arrival.stored_ns}",
        Header.FORWARDED_ID.value: arrival.job_id,
        Header.FORWARDED_AT.value: arrival.stored_at.isoformat(),
    }
    await publish(connection, f"jobs.{tenant}.{model}.{lane}", arrival.data, headers, deadline_s=FORWARD_DEADLINE_S)
    await remove(connection, arrival)


async def remove(connection: Connection, arrival: Arrival) -> None:
    """Take a message out of its ingress stream: it has been dealt with."""
    await connection.request(arrival.reply, b"+ACK")


async def give_back(connection: Connection, arrival: Arrival, delay_s: float) -> None:
    """Leave a message where it is, to be delivered again after `delay_s`."""
    await connection.request(arrival.reply, b'-NAK {"delay": %d}' % round(delay_s * 1e9))


async def waiting_in_jobs(connection: Connection, tenant: str) -> int:
    """Jobs of a tenant that wait or run now."""
    with connection.errors():
        info = await connection.js.stream_info(Stream.JOBS, subjects_filter=f"jobs.{tenant}.>")
    return sum((info.state.subjects or {}).values())


def _plain(value: str) -> bool:
    return len(value) <= _LONGEST_HEADER and value.isascii() and value.isprintable()


def _arrival(message: Msg) -> Arrival:
    metadata = message.metadata
    return Arrival(
        subject=message.subject,
        headers=message.headers or {},
        data=message.data,
        sequence=metadata.sequence.stream,
        stored_at=metadata.timestamp,
        stored_ns=message.reply.split(".")[-2],
        reply=message.reply,
    )
