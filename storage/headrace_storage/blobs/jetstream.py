"""Blobs in JetStream's object store: the store of a system without S3, with nothing to run beside the broker.

Same layout as every other NATS client (ADR-20), so `nats object` reads and writes the same blobs; only the way there
is our own: uploads keep a window of chunks in flight, downloads come in batches and end when chunks are missing.

    put:  chunks under a new nuid -> record, unless it was replaced meanwhile -> purge the chunks of the old record
    get:  record -> its chunks; if they vanish on the way, somebody replaced the blob: begin again with the new record
"""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from nats.aio.client import Client
from nats.nuid import NUID

from headrace_contracts.clock import Clock, SystemClock
from headrace_contracts.errors import BlobError, BlobForbidden, BlobMismatch, BlobNotFound, PresignUnsupported
from headrace_contracts.names import BLOB_BUCKET
from headrace_storage.blobs.chunks import CHUNK_BYTES, ChunksMissing, read_chunks, send_chunks
from headrace_storage.blobs.keys import check_existing, check_new
from headrace_storage.blobs.landing import Landing, check_sha256
from headrace_storage.blobs.object_record import ObjectOptions, ObjectRecord, digest_of
from headrace_storage.blobs.object_stream import ObjectStream, Replaced, StoredMessage
from headrace_storage.blobs.port import BlobInfo

_LIST_BATCH: Final = 256
_NO_URLS: Final = "JetStream's object store has no URLs: configure S3 ([s3] in headrace.toml)"


class JetStreamBlobs:
    """A `BlobStore` in the bucket's stream, over a connection that stays the caller's.

    Args:
        nc: a connected client.
        bucket: name of the object store; its stream is `OBJ_<bucket>`, created on entry in file storage.
        max_bytes: limit of a stream that is created; a full one refuses uploads (BlobUnavailable).
        timeout_s: longest wait for one answer of the broker; a blob takes many.
        clock: for the times in records.
    """

    def __init__(
        self,
        nc: Client,
        bucket: str = BLOB_BUCKET,
        *,
        max_bytes: int | None = None,
        timeout_s: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self._bucket = bucket
        self._max_bytes = max_bytes
        self._clock = clock or SystemClock()
        self._nuids = NUID()
        self._stream = ObjectStream(nc, bucket, timeout_s)

    async def __aenter__(self) -> Self:
        await self._stream.ensure(self._max_bytes)
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def put(self, key: str, source: bytes | Path, content_type: str) -> BlobInfo:
        """Store `source`; what was there stays readable until all of it is confirmed."""
        check_new(key)
        nuid = self._nuids.next().decode()
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            try:
                sent = await send_chunks(self._stream, key, nuid, file)
            except BaseException:
                # Best effort: what it leaves, `discard_unfinished` finds.
                with suppress(BlobError):
                    await self._stream.purge(key, self._stream.chunks_subject(nuid))
                raise
        now = self._clock.now()
        record = ObjectRecord(
            name=key,
            bucket=self._bucket,
            nuid=nuid,
            size=sent.size_bytes,
            chunks=sent.chunks,
            digest=digest_of(sent.sha256),
            mtime=now.isoformat(),
            headers={"Content-Type": [content_type]},
            options=ObjectOptions(CHUNK_BYTES),
        )
        await self._commit(key, record)
        return _info(record, now)

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Fetch the chunks that hold the range."""
        while True:
            record, _ = await self._find(key)
            stop = record.size if length is None else min(record.size, start + length)
            try:
                data = b"".join([piece async for piece in read_chunks(self._stream, record, start, stop)])
            except ChunksMissing as gap:
                await self._check_replaced(record, gap)
                continue
            if len(data) == record.size:
                check_sha256(key, hashlib.sha256(data).hexdigest(), record.sha256)
            return data

    async def get_to(self, key: str, target: Path, *, size_bytes: int, sha256: str) -> None:
        """Write the chunks to a file as they come."""
        while True:
            record, _ = await self._find(key)
            if record.size != size_bytes:
                raise BlobMismatch(key, f"has {record.size} bytes and its reference says {size_bytes}")
            check_sha256(key, record.sha256, sha256)
            with Landing(key, target, size_bytes, sha256) as landing:
                try:
                    async for piece in read_chunks(self._stream, record, 0, record.size):
                        await asyncio.to_thread(landing.write, piece)
                except ChunksMissing as gap:
                    await self._check_replaced(record, gap)
                    continue
                await asyncio.to_thread(landing.finish)
                return

    async def stat(self, key: str) -> BlobInfo:
        """Read the record."""
        record, message = await self._find(key)
        return _info(record, message.time)

    async def delete(self, key: str) -> None:
        """Delete the record, then its chunks; no tombstone stays, as one would for every job that ever ran."""
        check_existing(key)
        while (message := await self._stream.last(key, self._stream.record_subject(key))) is not None:
            # By sequence: a record that replaced this one meanwhile is found by the next turn.
            if await self._stream.delete(key, message.seq):
                await self._purge_chunks(key, message)

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Read all records of the bucket and pick; one that is replaced meanwhile may appear twice."""
        async for message in self._records():
            record = ObjectRecord.read(message.data)
            if record is not None and record.name.startswith(prefix):
                yield _info(record, message.time)

    async def presign_get(self, key: str, expires_s: float) -> str:  # noqa: ARG002 - the port's
        """Not here."""
        raise PresignUnsupported(key, _NO_URLS)

    async def presign_put(self, key: str, expires_s: float) -> str:  # noqa: ARG002 - the port's
        """Not here."""
        raise PresignUnsupported(key, _NO_URLS)

    async def discard_unfinished(self, older_than_s: float) -> int:
        """Purge the chunks of uploads that a crash or a lost connection cut off; returns how many uploads.

        Args:
            older_than_s: age of the last chunk; must exceed the longest pause of an upload under way.
        """
        limit = self._clock.now() - timedelta(seconds=older_than_s)
        # Uploads before records: one that finishes in between is in both.
        uploads = await self._stream.uploads()
        finished = {
            record.nuid async for message in self._records() if (record := ObjectRecord.read(message.data)) is not None
        }
        discarded = 0
        for nuid in set(uploads) - finished:
            subject = self._stream.chunks_subject(nuid)
            last = await self._stream.last(nuid, subject)
            if last is not None and last.time < limit:
                await self._stream.purge(nuid, subject)
                discarded += 1
        return discarded

    async def _commit(self, key: str, record: ObjectRecord) -> None:
        """Publish the record and purge the chunks of the one it replaced.

        If the answer is lost, nobody knows whether the record is there: its chunks must stay.
        """
        subject = self._stream.record_subject(key)
        while True:
            old = await self._stream.last(key, subject)
            try:
                await self._stream.publish_record(key, record, 0 if old is None else old.seq)
            except Replaced:
                # Another upload of this key was first. Each replaces exactly one record, so no chunks are forgotten.
                continue
            if old is not None:
                await self._purge_chunks(key, old)
            return

    async def _purge_chunks(self, key: str, message: StoredMessage) -> None:
        record = ObjectRecord.read(message.data)
        if record is not None:
            # A tenant's role may not purge: it could purge every tenant's. `discard_unfinished` finds what stays.
            with suppress(BlobForbidden):
                await self._stream.purge(key, self._stream.chunks_subject(record.nuid))

    async def _find(self, key: str) -> tuple[ObjectRecord, StoredMessage]:
        check_existing(key)
        message = await self._stream.last(key, self._stream.record_subject(key))
        record = None if message is None else ObjectRecord.read(message.data)
        if message is None or record is None:
            raise BlobNotFound(key)
        return record, message

    async def _check_replaced(self, read: ObjectRecord, gap: ChunksMissing) -> None:
        """Return if the blob was replaced while it was read; raise what its missing chunks mean otherwise."""
        now, _ = await self._find(read.name)
        if now.nuid == read.nuid:
            raise BlobMismatch(read.name, str(gap)) from gap

    async def _records(self) -> AsyncIterator[StoredMessage]:
        seq = 1
        while batch := await self._stream.batch(self._bucket, self._stream.record_subject("*"), seq, _LIST_BATCH):
            for message in batch:
                yield message
            seq = batch[-1].seq + 1


def _info(record: ObjectRecord, stored_at: datetime) -> BlobInfo:
    return BlobInfo(record.name, record.size, record.sha256, record.content_type, stored_at)
