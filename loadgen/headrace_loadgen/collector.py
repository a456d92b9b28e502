"""Reads what is left at the end of a run: streams, queue, bucket. Every body is read; nothing is taken on trust."""

import asyncio
import hashlib

import msgspec

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BlobError, BrokerUnavailable
from headrace_contracts.names import Bucket, Stream
from headrace_loadgen import evidence
from headrace_loadgen.journal import Journal
from headrace_loadgen.records import Blob, Final, StoredMessage
from headrace_loadgen.streams import read_all, stream_state
from headrace_loadgen.system.testbed import Testbed
from headrace_storage.blobs.port import BlobStore
from headrace_storage.blobs.s3 import S3Blobs

# A cluster may still be electing; anything longer is a fault of its own.
DEADLINE_S = 60.0
READERS = 8


async def collect(bed: Testbed, clock: Clock, drained: bool, drain_s: float) -> None:
    """Write `results-at-the-end.jsonl` and `final.json`.

    Raises:
        BrokerUnavailable: the streams could not be read.
        BlobError: the bucket could not be read.
    """
    watch = bed.watch
    results = await _patiently(bed, clock, Stream.RESULTS, "results.>")
    with Journal[StoredMessage](bed.folder / evidence.RESULTS) as journal:
        for message in results:
            journal.write(message)
    final = Final(
        drained=drained,
        drain_s=drain_s,
        results_state=await stream_state(watch, Stream.RESULTS),
        jobs_left=tuple(await _patiently(bed, clock, Stream.JOBS, "jobs.>")),
        dead=tuple(await _patiently(bed, clock, Stream.DEAD, "dead.>")),
        attempts=tuple(await _patiently(bed, clock, f"KV_{Bucket.ATTEMPTS}", f"$KV.{Bucket.ATTEMPTS}.>")),
        blobs=await _read_bucket(bed),
        worker_exits=tuple(bed.fleet.exits),
        ended_by_themselves=tuple(bed.fleet.by_themselves),
        failed_starts=tuple(bed.fleet.failed_starts),
    )
    (bed.folder / evidence.FINAL).write_bytes(msgspec.json.encode(final))


async def _patiently(bed: Testbed, clock: Clock, stream: str, subjects: str) -> list[StoredMessage]:
    """All messages of a stream, once as many were read as its leader counts: a replica may lag behind."""
    give_up_at = clock.monotonic() + DEADLINE_S
    while True:
        try:
            found = await read_all(bed.watch, clock, stream, subjects)
            if len(found) == (await stream_state(bed.watch, stream)).messages:
                return found
        except BrokerUnavailable:
            if clock.monotonic() > give_up_at:
                raise
        if clock.monotonic() > give_up_at:
            return found
        await asyncio.sleep(0.2)


async def _read_bucket(bed: Testbed) -> tuple[Blob, ...]:
    async with S3Blobs(bed.store.settings) as blobs:
        keys = {info.key: info async for info in blobs.list("")}
        waiting = iter(keys.values())
        found: list[Blob] = []

        async def read() -> None:
            for info in waiting:
                size_bytes, sha256 = await _hash(blobs, info.key)
                found.append(Blob(info.key, size_bytes, sha256, info.stored_at))

        async with asyncio.TaskGroup() as readers:
            for _ in range(READERS):
                readers.create_task(read())
    return tuple(sorted(found, key=lambda blob: blob.key))


async def _hash(blobs: BlobStore, key: str) -> tuple[int, str]:
    try:
        data = await blobs.get(key)
    except BlobError as error:
        return 0, str(error)  # damaged: it differs from whatever is promised
    return len(data), hashlib.sha256(data).hexdigest()
