"""How many jobs are before one: in its lane, or in the ingress stream that it has not left yet.

Both are told by the broker's own counts, so that a queue of a million jobs costs no more than one of ten.
"""

import msgspec
import nats.js.errors

from headrace_contracts import codec
from headrace_contracts.names import (
    INGRESS_CANCEL,
    Header,
    Stream,
    consumer_filter,
    ingress_stream,
    is_token,
    job_id_of_sequence,
)
from headrace_storage.connection import Connection
from headrace_storage.lanes import LaneState
from headrace_storage.reading import next_batch

# Messages of an ingress stream that are looked at, one request each: it may not be read in batches, and whoever
# forwards is rarely behind by more.
MOST_LOOKED_AT = 1000


class IngressPosition(msgspec.Struct, frozen=True):
    """A job that waits in its tenant's ingress stream to be forwarded."""

    model: str
    ahead: int
    """Messages before it."""


async def jobs_ahead(connection: Connection, lane: LaneState, sequence: int) -> int | None:
    """Jobs of the lane that wait and come before the one at `sequence`; None if a worker has had that one.

    The lane was looked at a moment before, so the number may be off by what came and went since.

    Raises:
        BrokerUnavailable: no answer.
    """
    if sequence <= lane.delivered:
        return None
    subject = consumer_filter(lane.model, lane.lane)
    after = await _count_from(connection, subject, sequence + 1)
    return max(0, lane.waiting - after - 1)


async def find_in_ingress(connection: Connection, tenant: str, job_id: str) -> IngressPosition | None:
    """Where a job waits among the first MOST_LOOKED_AT messages of its ingress stream; None if it is not there.

    Raises:
        BrokerUnavailable: no answer.
    """
    stream = ingress_stream(tenant)
    sequence = 1
    for ahead in range(MOST_LOOKED_AT):
        with connection.errors():
            try:
                message = await connection.js.get_msg(stream, seq=sequence, next=True, subject=f"ingress.{tenant}.>")
            except nats.js.errors.NotFoundError:  # the end; or the tenant has no such stream
                return None
        assert message.seq is not None
        _, _, model, lane = (message.subject or "").split(".")
        named = codec.header(message.headers, Header.JOB_ID)
        own_id = named if named is not None and is_token(named) else job_id_of_sequence(message.seq)
        if own_id == job_id and lane != INGRESS_CANCEL:
            return IngressPosition(model, ahead)
        sequence = message.seq + 1
    return None


async def _count_from(connection: Connection, subject: str, sequence: int) -> int:
    """Messages of a subject from a sequence on: the next one, and those that the server says are behind it."""
    batch = await next_batch(connection, Stream.JOBS, subject, sequence, 1)
    return len(batch.messages) + batch.left
