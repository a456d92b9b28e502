"""The WORKERS bucket: heartbeats, which end by themselves when a worker does."""

import msgspec
import nats.js.errors

from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.heartbeat import WorkerStatus
from headrace_contracts.names import Bucket
from headrace_storage.connection import Connection
from headrace_storage.reading import bucket_values


async def put_status(connection: Connection, status: WorkerStatus) -> None:
    """Publish a heartbeat; it is gone after `HEARTBEAT_TTL_S` without another.

    Raises:
        BrokerUnavailable: no answer, or the bucket is not there (it lives in the broker's memory).
    """
    with connection.errors():
        await connection.js.publish(f"$KV.{Bucket.WORKERS}.{status.id}", msgspec.json.encode(status))


async def remove_status(connection: Connection, worker_id: str) -> None:
    """Say that a worker has stopped."""
    with connection.errors():
        bucket = await connection.js.key_value(Bucket.WORKERS)
        await bucket.delete(worker_id)


async def list_workers(connection: Connection) -> list[WorkerStatus]:
    """Workers that are alive, by id; none where there is no bucket.

    The bucket ends with the broker's memory, and workers make it anew. Were its absence an outage, a system that was at
    zero would stay there after a restart of the broker: nobody would start the worker that makes the bucket.

    Raises:
        BrokerUnavailable: no answer.
    """
    try:
        entries = await bucket_values(connection, Bucket.WORKERS)
    except BrokerUnavailable:
        # A batched get has the same answer for a bucket that is not there and for one that is choosing its leader.
        if await _bucket_exists(connection):
            raise
        return []
    return [msgspec.json.decode(value, type=WorkerStatus) for _, value in sorted(entries.items())]


async def _bucket_exists(connection: Connection) -> bool:
    with connection.errors():
        try:
            await connection.js.stream_info(f"KV_{Bucket.WORKERS}")
        except nats.js.errors.NotFoundError:
            return False
    return True
