"""Many messages of a stream in one request, without a consumer: a batched direct get."""

import asyncio

import msgspec
import nats.js.errors
from nats.aio.msg import Msg

from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.names import Stream
from headrace_storage.connection import REQUEST_TIMEOUT_S, Connection

# One answer of a batched get. Larger saves round trips; smaller lets a slow link finish in time.
BATCH_BYTES = 2 * 1024 * 1024
BATCH_MESSAGES = 1000


async def batched_get(
    connection: Connection, stream: Stream, subject: str, from_sequence: int, count: int = BATCH_MESSAGES
) -> list[Msg]:
    """The next messages of a wildcard, oldest first.

    Args:
        connection: the broker.
        stream: its `allow_direct` must be on.
        subject: may have wildcards.
        from_sequence: the first that may be among them.
        count: most of them; there are fewer where they take more than BATCH_BYTES.

    Returns:
        Messages with the server's headers `Nats-Sequence`, `Nats-Subject` and `Nats-Time-Stamp`; none at the end.

    Raises:
        BrokerUnavailable: no answer, or the connection may not read the stream.
    """
    arrived: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = connection.nc.new_inbox()
    request = {"next_by_subj": subject, "seq": from_sequence, "batch": count, "max_bytes": BATCH_BYTES}
    found: list[Msg] = []
    with connection.errors():
        subscription = await connection.nc.subscribe(inbox, cb=arrived.put)
        try:
            await connection.nc.publish(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request), reply=inbox)
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                # A client may publish a message with a `Status` header; only what is stored has a sequence.
                while "Nats-Sequence" in (headers := (message := await arrived.get()).headers or {}):
                    found.append(message)
        finally:
            await subscription.unsubscribe()
    if headers.get("Status") not in ("204", "404"):
        raise BrokerUnavailable(connection.url, f"it answered {headers.get('Status')} to a batched get of {stream}")
    return found


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
