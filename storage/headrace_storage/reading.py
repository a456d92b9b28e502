"""Read many messages of a stream with few requests, past whatever clients have put into them.

Answers to a batched get are told from its end by the sequence that only the server can set: a client's message may
carry a header named `Status`, and it may not look like the end of the batch.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import msgspec
import nats.js.errors
from nats.aio.msg import Msg

from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.names import Bucket
from headrace_storage.connection import REQUEST_TIMEOUT_S, Connection

# One answer of a batched get. Larger saves round trips; smaller lets a slow link finish in time.
BATCH_BYTES = 2 * 1024 * 1024
BATCH_MESSAGES = 1000
# The server's limit for one request is 1,024.
SUBJECTS_AT_ONCE = 1000

_EMPTY, _END = "404", "204"


class Stored(msgspec.Struct, frozen=True):
    """A message as a stream keeps it."""

    subject: str
    headers: dict[str, str]
    data: bytes
    sequence: int
    stored_at: datetime


class Batch(msgspec.Struct, frozen=True):
    """Some messages, and where to go on: 0 if these were the last."""

    messages: list[Stored]
    next_sequence: int
    left: int
    """Messages behind these, as the server counted them."""


async def next_batch(
    connection: Connection, stream: str, subject: str, from_sequence: int, count: int = BATCH_MESSAGES
) -> Batch:
    """The next messages of a subject or wildcard, oldest first: at most `count`, at most BATCH_BYTES and a bit.

    Raises:
        BrokerForbidden: this role may not read the stream.
        BrokerUnavailable: no answer.
    """
    request = {"next_by_subj": subject, "seq": from_sequence, "batch": count, "max_bytes": BATCH_BYTES}
    found, end = await _get(connection, stream, request)
    last = max([int(end.get("Nats-Last-Sequence", 0)), *(message.sequence for message in found)])
    left = int(end.get("Nats-Num-Pending", 0))
    more = left > 0 and last >= from_sequence
    return Batch(found, last + 1 if more else 0, left)


async def messages_from(
    connection: Connection, stream: str, subject: str, from_sequence: int = 1
) -> AsyncIterator[Stored]:
    """All messages of a subject or wildcard, oldest first."""
    sequence = from_sequence
    while sequence:
        batch = await next_batch(connection, stream, subject, sequence)
        for message in batch.messages:
            yield message
        sequence = batch.next_sequence


async def last_of(connection: Connection, stream: str, subjects: Sequence[str]) -> AsyncIterator[Stored]:
    """The last message of each of these subjects that has one; none of them a wildcard."""
    for start in range(0, len(subjects), SUBJECTS_AT_ONCE):
        wanted = set(subjects[start : start + SUBJECTS_AT_ONCE])
        while wanted:
            request = {"multi_last": sorted(wanted), "batch": SUBJECTS_AT_ONCE, "max_bytes": BATCH_BYTES}
            found, end = await _get(connection, stream, request)
            for message in found:
                yield message
            wanted -= {message.subject for message in found}
            if not found or int(end.get("Nats-Num-Pending", 0)) == 0:
                break


async def subject_counts(connection: Connection, stream: str, subject: str) -> dict[str, int]:
    """Subjects under a wildcard that hold messages, and how many; a stream that is not there has none.

    Raises:
        BrokerUnavailable: no answer.
    """
    counts: dict[str, int] = {}
    while True:
        payload = msgspec.json.encode({"subjects_filter": subject, "offset": len(counts)})
        try:
            answer = await connection.api(f"STREAM.INFO.{stream}", payload)
        except nats.js.errors.NotFoundError:
            return {}
        page = answer["state"].get("subjects") or {}
        counts.update(page)
        # The server sends 100,000 subjects at once, and says how many there are.
        if not page or len(counts) >= int(answer.get("total", 0)):
            return counts


async def bucket_values(connection: Connection, bucket: Bucket) -> dict[str, bytes]:
    """Key and value of every living entry of a key-value bucket, a thousand a request."""
    prefix = f"$KV.{bucket}."
    values: dict[str, bytes] = {}
    async for entry in messages_from(connection, f"KV_{bucket}", f"{prefix}>"):
        key = entry.subject.removeprefix(prefix)
        # Older revisions come first; one that was removed is a marker without a value.
        values.pop(key, None)
        if entry.data and "KV-Operation" not in entry.headers:
            values[key] = entry.data
    return values


async def _get(connection: Connection, stream: str, request: dict[str, object]) -> tuple[list[Stored], dict[str, str]]:
    """The messages of one direct get, and the headers of its end."""
    arrived: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = connection.nc.new_inbox()
    found: list[Stored] = []
    target = f"$JS.API.DIRECT.GET.{stream}"

    async def until_end() -> dict[str, str]:
        await connection.nc.publish(target, msgspec.json.encode(request), reply=inbox)
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            while (end := _end_of_batch(message := await arrived.get())) is None:
                if message.headers:  # without: they are no UTF-8, and nobody can say which message it is
                    found.append(_stored(message))
        return end

    with connection.errors():
        subscription = await connection.nc.subscribe(inbox, cb=arrived.put)
        try:
            end = await connection.refusals.unless_refused(target, until_end())
        finally:
            await subscription.unsubscribe()
    if end.get("Status") not in (_END, _EMPTY):
        raise BrokerUnavailable(connection.url, f"it answered {end.get('Status')} to a batched get of {stream}")
    return found, end


def _end_of_batch(message: Msg) -> dict[str, str] | None:
    headers: dict[str, str] = message.headers or {}
    return headers if "Status" in headers and "Nats-Sequence" not in headers else None


def _stored(message: Msg) -> Stored:
    headers = dict(message.headers)
    stored_at = msgspec.convert(headers["Nats-Time-Stamp"], datetime)
    return Stored(headers["Nats-Subject"], headers, message.data, int(headers["Nats-Sequence"]), stored_at)
