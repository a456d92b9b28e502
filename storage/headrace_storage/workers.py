"""The WORKERS bucket: heartbeats, which end by themselves when a worker does."""

import msgspec
import nats.js.errors

from headrace_contracts.heartbeat import WorkerStatus
from headrace_contracts.names import Bucket
from headrace_storage.connection import Connection


async def put_status(connection: Connection, status: WorkerStatus) -> None:
    """Publish a heartbeat; it is gone after `HEARTBEAT_TTL_S` without another."""
    with connection.errors():
        bucket = await connection.js.key_value(Bucket.WORKERS)
        await bucket.put(status.id, msgspec.json.encode(status))


async def remove_status(connection: Connection, worker_id: str) -> None:
    """Say that a worker has stopped."""
    with connection.errors():
        bucket = await connection.js.key_value(Bucket.WORKERS)
        await bucket.delete(worker_id)


async def list_workers(connection: Connection) -> list[WorkerStatus]:
    """Workers that are alive, by id."""
    with connection.errors():
        try:
            bucket = await connection.js.key_value(Bucket.WORKERS)
            keys = sorted(await bucket.keys())
        except (nats.js.errors.NoKeysError, nats.js.errors.BucketNotFoundError):
            return []
        found = []
        for key in keys:
            try:
                entry = await bucket.get(key)
            except nats.js.errors.KeyNotFoundError:
                continue
            if entry.value:  # an expired key reads as an entry without value for a while
                found.append(msgspec.json.decode(entry.value, type=WorkerStatus))
    return found
