"""Expiry of blobs, by listing: lifecycle rules of S3 servers are accepted and not enforced, or refused."""

from datetime import timedelta

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BlobNotFound
from headrace_storage.blobs.port import BlobStore


async def sweep(store: BlobStore, prefix: str, older_than_s: float, clock: Clock) -> int:
    """Delete the blobs below `prefix` that were stored more than `older_than_s` ago; returns how many.

    Safe to run from several processes, and to repeat after an error.
    """
    limit = clock.now() - timedelta(seconds=older_than_s)
    deleted = 0
    async for listed in store.list(prefix):
        if listed.stored_at >= limit:
            continue
        # A long list is old when its end is reached: a blob may have been uploaded anew meanwhile.
        try:
            if (await store.stat(listed.key)).stored_at >= limit:
                continue
        except BlobNotFound:
            continue
        await store.delete(listed.key)
        deleted += 1
    return deleted
