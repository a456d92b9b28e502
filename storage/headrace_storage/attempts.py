"""The ATTEMPTS bucket: what is known of a job's earlier deliveries. Written only when one went wrong."""

from collections.abc import Callable

import msgspec
import nats.js.errors

from headrace_contracts.attempts import Attempts
from headrace_contracts.names import Bucket, attempts_key
from headrace_storage.connection import Connection


async def get_attempts(connection: Connection, tenant: str, model: str, job_id: str) -> Attempts:
    """The record of a job; an empty one if nothing went wrong so far."""
    return (await _read(connection, attempts_key(tenant, model, job_id)))[0]


async def change_attempts(
    connection: Connection, tenant: str, model: str, job_id: str, change: Callable[[Attempts], Attempts]
) -> Attempts:
    """Change the record of a job by compare-and-set, so that no other writer's entry is lost."""
    key = attempts_key(tenant, model, job_id)
    while True:
        record, revision = await _read(connection, key)
        changed = change(record)
        data = msgspec.json.encode(changed)
        with connection.errors():
            bucket = await connection.js.key_value(Bucket.ATTEMPTS)
            try:
                await (bucket.create(key, data) if revision is None else bucket.update(key, data, revision))
            except nats.js.errors.KeyWrongLastSequenceError:
                continue
        return changed


async def forget_attempts(connection: Connection, tenant: str, model: str, job_id: str) -> None:
    """Remove the record of a job that has ended."""
    with connection.errors():
        bucket = await connection.js.key_value(Bucket.ATTEMPTS)
        await bucket.purge(attempts_key(tenant, model, job_id))


async def _read(connection: Connection, key: str) -> tuple[Attempts, int | None]:
    with connection.errors():
        bucket = await connection.js.key_value(Bucket.ATTEMPTS)
        try:
            entry = await bucket.get(key)
        except nats.js.errors.KeyNotFoundError:
            return Attempts(), None
    if not entry.value:
        return Attempts(), None
    return msgspec.json.decode(entry.value, type=Attempts), entry.revision
