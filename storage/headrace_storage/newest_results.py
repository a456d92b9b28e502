"""The newest ends of jobs, for whoever shows how fast they are: read a bounded number, whatever comes in."""

from datetime import datetime

import msgspec
import nats.js.errors

from headrace_contracts import codec
from headrace_contracts.errors import UndecodableMessage
from headrace_contracts.names import Stream
from headrace_contracts.result import Status
from headrace_storage.connection import Connection
from headrace_storage.reading import Stored, next_batch

# Ends read at one look. More cost the broker more, since each comes with its whole output; fewer make a coarser p99.
MOST_AT_A_LOOK = 500
# Requests of one look, each answered with 2 MiB at most.
MOST_REQUESTS = 4


class End(msgspec.Struct, frozen=True):
    """One job that has ended."""

    model: str
    status: Status
    took_s: float
    """From when the broker had the job until it had the result: both by its clock."""
    stored_at: datetime


class Ends(msgspec.Struct, frozen=True):
    """One look at the stream of results."""

    ends: tuple[End, ...]
    """Oldest first."""
    skipped: int
    """Results between the look before and this one that were not read, because there were too many."""
    next_sequence: int
    """Where the next look goes on."""


class _Body(msgspec.Struct, frozen=True):
    """The part of a result that is read; the rest is passed over."""

    status: Status
    created_at: datetime


async def newest_ends(connection: Connection, from_sequence: int | None) -> Ends:
    """Ends of jobs of all models from a sequence of RESULTS on, the newest if there are too many.

    Args:
        connection: the broker.
        from_sequence: what the look before returned; None for the first.

    Raises:
        BrokerUnavailable: no answer.
    """
    with connection.errors():
        try:
            state = (await connection.js.stream_info(Stream.RESULTS)).state
        except nats.js.errors.NotFoundError:  # nobody has run a job on this broker yet
            return Ends((), 0, 1)
    newest = max(1, state.first_seq, state.last_seq - MOST_AT_A_LOOK + 1)  # an empty stream begins at 0
    # A stream that was made anew counts from 1 again.
    wanted = newest if from_sequence is None or from_sequence > state.last_seq + 1 else from_sequence
    start = max(wanted, newest)
    ends: list[End] = []
    sequence = next_sequence = start
    for _ in range(MOST_REQUESTS):
        batch = await next_batch(connection, Stream.RESULTS, "results.>", sequence, MOST_AT_A_LOOK)
        ends += [end for message in batch.messages if (end := _end(message)) is not None]
        if batch.messages:
            next_sequence = batch.messages[-1].sequence + 1
        if not batch.next_sequence:
            break
        sequence = batch.next_sequence
    return Ends(tuple(ends), start - wanted, next_sequence)


def _end(message: Stored) -> End | None:
    """None for what is no result: a client may publish anything there."""
    try:
        body = codec.decode(message.data, _Body, codec.encoding_of(message.headers, message.data))
        took_s = (message.stored_at - body.created_at).total_seconds()
    except (UndecodableMessage, TypeError):  # no result, or a date without a zone
        return None
    return End(message.subject.split(".")[2], body.status, max(0.0, took_s), message.stored_at)
