"""Read whole key-value buckets without leaving anything on the server.

The client's `keys()` makes a consumer for every call, which stays for five minutes; here the keys come from the
stream's own account of its subjects.
"""

import nats.js.errors

from headrace_contracts.names import Bucket
from headrace_storage.connection import Connection


async def bucket_entries(connection: Connection, bucket: Bucket) -> list[tuple[str, bytes]]:
    """Key and value of every living entry, by key; empty where there is no such bucket.

    Raises:
        BrokerUnavailable: no answer.
    """
    prefix = f"$KV.{bucket}."
    with connection.errors():
        try:
            info = await connection.js.stream_info(f"KV_{bucket}", subjects_filter=f"{prefix}>")
            store = await connection.js.key_value(bucket)
        except (nats.js.errors.NotFoundError, nats.js.errors.BucketNotFoundError):
            return []
        entries = []
        for subject in sorted(info.state.subjects or {}):
            key = subject.removeprefix(prefix)
            try:
                entry = await store.get(key)
            except nats.js.errors.KeyNotFoundError:  # deleted; the marker still counts as a subject
                continue
            if entry.value:  # an expired key reads as an entry without a value for a while
                entries.append((key, bytes(entry.value)))
    return entries
