"""Find a job among those that wait or run, by its id alone.

The stream keeps jobs by subject and the id is only in a header, so this reads the tenant's messages from the oldest on.
It is for people who look for one job, not for programs that submitted it and hold its receipt.
"""

import re

import msgspec

from headrace_contracts.errors import UndecodableMessage
from headrace_contracts.job import Job, decode_job
from headrace_contracts.names import Stream, check_token
from headrace_storage.connection import Connection
from headrace_storage.reading import BATCH_MESSAGES, Stored, next_batch

_SEQUENCE_ID = re.compile(r"seq-(\d{1,19})")


class PlacedJob(msgspec.Struct, frozen=True):
    """A job that waits or runs, and its place in the stream."""

    job: Job
    sequence: int


async def find_job(connection: Connection, tenant: str, job_id: str, model: str | None = None) -> Job | None:
    """The job with this id if it waits or runs now, else None; raises as `find_placed_job`."""
    placed = await find_placed_job(connection, tenant, job_id, model)
    return None if placed is None else placed.job


async def find_placed_job(
    connection: Connection, tenant: str, job_id: str, model: str | None = None
) -> PlacedJob | None:
    """The job with this id, and where it is, if it waits or runs now; else None.

    Raises:
        BrokerForbidden: this role may not read the stream of jobs: a tenant's could read every tenant's.
        BrokerUnavailable: no answer.
    """
    in_model = "*" if model is None else check_token("model", model)
    subject = f"jobs.{check_token('tenant', tenant)}.{in_model}.*"
    # A job without an id of its own is named after its place, so there is one place to look at.
    placed = _SEQUENCE_ID.fullmatch(check_token("job id", job_id))
    sequence, only_one = (int(placed[1]), True) if placed else (1, False)
    while sequence:
        batch = await next_batch(connection, Stream.JOBS, subject, sequence, 1 if only_one else BATCH_MESSAGES)
        for message in batch.messages:
            job = _job(message)
            if job is not None and job.id == job_id:
                return PlacedJob(job, message.sequence)
        sequence = 0 if only_one else batch.next_sequence
    return None


def _job(message: Stored) -> Job | None:
    """The job in a message; None if it is none, as any client may publish anything."""
    try:
        return decode_job(message.subject, message.headers, message.data, message.sequence, message.stored_at)
    except UndecodableMessage:
        return None
