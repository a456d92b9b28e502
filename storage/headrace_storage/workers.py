"""The WORKERS bucket: heartbeats, which end by themselves when a worker does."""

import msgspec

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
    """Workers that are alive, by id."""
    entries = await bucket_values(connection, Bucket.WORKERS)
    return [msgspec.json.decode(value, type=WorkerStatus) for _, value in sorted(entries.items())]
