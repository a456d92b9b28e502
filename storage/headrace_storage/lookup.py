"""Find a job among those that wait or run, by its id alone.

The stream keeps jobs by subject and the id is only in a header, so this reads the tenant's messages from the oldest on.
It is for people who look for one job, not for programs that submitted it and hold its receipt.
"""

import asyncio
import re
from datetime import datetime

import msgspec
from nats.aio.msg import Msg

from headrace_contracts.errors import BrokerUnavailable, UndecodableMessage
from headrace_contracts.job import Job, decode_job
from headrace_contracts.names import Stream, check_token
from headrace_storage.connection import REQUEST_TIMEOUT_S, Connection

# One answer of a batched get. Larger saves round trips; smaller lets a slow link finish in time.
BATCH_BYTES = 2 * 1024 * 1024
BATCH_MESSAGES = 1000

_SEQUENCE_ID = re.compile(r"seq-(\d{1,19})")


async def find_job(connection: Connection, tenant: str, job_id: str, model: str | None = None) -> Job | None:
    """The job with this id if it waits or runs now, else None.

    Raises:
        BrokerUnavailable: no answer, or the connection may not read the stream of jobs.
    """
    in_model = "*" if model is None else check_token("model", model)
    subject = f"jobs.{check_token('tenant', tenant)}.{in_model}.*"
    # A job without an id of its own is named after its place, so there is one place to look at.
    placed = _SEQUENCE_ID.fullmatch(check_token("job id", job_id))
    sequence, only_one = (int(placed[1]), True) if placed else (1, False)
    while True:
        batch = await _batch(connection, subject, sequence, 1 if only_one else BATCH_MESSAGES)
        for message in batch:
            job = _job(message)
            if job is not None and job.id == job_id:
                return job
        if only_one or not batch:
            return None
        sequence = int(batch[-1].headers["Nats-Sequence"]) + 1


def _job(message: Msg) -> Job | None:
    """The job in an answer to a direct get; None if it is none, as any client may publish anything."""
    headers = message.headers
    stored_at = msgspec.convert(headers["Nats-Time-Stamp"], datetime)
    try:
        return decode_job(headers["Nats-Subject"], headers, message.data, int(headers["Nats-Sequence"]), stored_at)
    except UndecodableMessage:
        return None


async def _batch(connection: Connection, subject: str, from_sequence: int, count: int) -> list[Msg]:
    """The next messages of a wildcard, oldest first: at most `count`, at most BATCH_BYTES, none at the end."""
    arrived: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = connection.nc.new_inbox()
    request = {"next_by_subj": subject, "seq": from_sequence, "batch": count, "max_bytes": BATCH_BYTES}
    found: list[Msg] = []
    with connection.errors():
        subscription = await connection.nc.subscribe(inbox, cb=arrived.put)
        try:
            await connection.nc.publish(f"$JS.API.DIRECT.GET.{Stream.JOBS}", msgspec.json.encode(request), reply=inbox)
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                while (status := ((message := await arrived.get()).headers or {}).get("Status")) is None:
                    found.append(message)
        finally:
            await subscription.unsubscribe()
    if status not in ("204", "404"):
        raise BrokerUnavailable(connection.url, f"it answered {status} to a batched get of jobs")
    return found
