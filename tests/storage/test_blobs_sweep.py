"""Expiry, where listing and reality differ."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from headrace_contracts.clock import SystemClock
from headrace_storage.blobs import BlobInfo, MemoryBlobs, sweep


class SetClock(SystemClock):
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


class SlowList(MemoryBlobs):
    """While it is listed, one blob is uploaded anew and one is deleted."""

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        async for info in super().list(prefix):
            if info.key == "renewed":
                await self.put("renewed", b"again", "text/plain")
            if info.key == "deleted":
                await self.delete("deleted")
            yield info


async def test_a_blob_uploaded_anew_during_the_listing_is_kept() -> None:
    clock = SetClock()
    store = SlowList(clock)
    for key in ("renewed", "deleted", "expired"):
        await store.put(key, b"x", "text/plain")
    clock.at += timedelta(seconds=61)
    assert await sweep(store, "", 60, clock) == 1
    assert [info.key async for info in store.list("")] == ["renewed"]


async def test_a_blob_expires_after_its_time_and_not_at_it() -> None:
    clock = SetClock()
    store = MemoryBlobs(clock)
    await store.put("k", b"x", "text/plain")
    clock.at += timedelta(seconds=60)
    assert await sweep(store, "", 60, clock) == 0
    clock.at += timedelta(microseconds=1)
    assert await sweep(store, "", 60, clock) == 1
