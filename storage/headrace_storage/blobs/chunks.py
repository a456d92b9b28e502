"""The bytes of an object as chunks in a stream: windowed upload, batched download, both checked by its counts."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator
from typing import BinaryIO, Final

import msgspec

from headrace_contracts.errors import BlobMismatch
from headrace_storage.blobs.object_record import ObjectRecord
from headrace_storage.blobs.object_stream import ObjectStream, StoredMessage

# What the other clients use; far below the smallest usual max_payload (1 MB).
CHUNK_BYTES: Final = 128 * 1024
# Chunks in flight: fewer wait for the broker, more only fill its socket buffer.
WINDOW: Final = 8
_READ_BYTES: Final = WINDOW * CHUNK_BYTES
# A replica that answers a direct get may be this far behind the leader that confirmed the chunks.
_REPLICA_PAUSES_S: Final = (0.02, 0.1, 0.4)


class SentChunks(msgspec.Struct, frozen=True):
    """What the broker confirmed of an upload."""

    size_bytes: int
    chunks: int
    sha256: bytes


class ChunksMissing(Exception):
    """The record counts more chunks than the stream has."""


async def send_chunks(stream: ObjectStream, key: str, nuid: str, file: BinaryIO) -> SentChunks:
    """Publish a file as the chunks of upload `nuid`, WINDOW at a time; returns once all are confirmed."""
    digest = hashlib.sha256()
    size_bytes = chunks = last_seq = 0
    unconfirmed: deque[asyncio.Task[int]] = deque()

    async def confirm() -> None:
        nonlocal last_seq
        # Shielded, and not taken out before: a cancelled upload has to wait for it too.
        seq = await asyncio.shield(unconfirmed[0])
        unconfirmed.popleft()
        # Tasks publish in the order in which they were made; the broker's sequence proves it.
        if seq <= last_seq:
            raise BlobMismatch(key, "its chunks reached the broker in another order")
        last_seq = seq

    try:
        while block := await asyncio.to_thread(_read_block, file, digest):
            size_bytes += len(block)
            for at in range(0, len(block), CHUNK_BYTES):
                if len(unconfirmed) == WINDOW:
                    await confirm()
                chunk = block[at : at + CHUNK_BYTES]
                unconfirmed.append(asyncio.create_task(stream.publish_chunk(key, nuid, chunk)))
                chunks += 1
        while unconfirmed:
            await confirm()
    finally:
        # After a failure: chunks still under way would be stored behind the purge that follows.
        await asyncio.gather(*unconfirmed, return_exceptions=True)
    return SentChunks(size_bytes, chunks, digest.digest())


async def read_chunks(stream: ObjectStream, record: ObjectRecord, start: int, stop: int) -> AsyncIterator[bytes]:
    """Bytes `start` to `stop` of an object, a batch of chunks at a time.

    Raises:
        ChunksMissing: the stream has not all the chunks that the record counts.
    """
    # Only records of foreign tools may have no chunk size; those objects are read from their beginning.
    chunk_bytes = record.options.max_chunk_size if record.options is not None else 0
    index = start // chunk_bytes if chunk_bytes else 0
    seq = await _locate(stream, record, index) if index and start < stop else 1
    at = index * chunk_bytes
    while at < stop and start < stop:
        wanted = -(-(stop - at) // chunk_bytes) if chunk_bytes else record.chunks - index
        batch = await _batch(stream, record, index, seq, wanted)
        data = b"".join([message.data for message in batch])
        yield data[max(0, start - at) : stop - at]
        at += len(data)
        index += len(batch)
        seq = batch[-1].seq + 1


async def _locate(stream: ObjectStream, record: ObjectRecord, index: int) -> int:
    """Where in the stream to look for chunk `index`.

    Chunks of one upload are in order and mostly without others in between: a guess is right, or too early.
    """
    # The first chunk comes with the count of all: only if none is missing do the counts below say which chunk it is.
    (found,) = await _batch(stream, record, 0, 1, 1)
    while (at := record.chunks - 1 - found.pending) < index:
        seq = found.seq + index - at
        batch = await stream.batch(record.name, stream.chunks_subject(record.nuid), seq, 1)
        if not batch:
            raise _missing(record)
        found = batch[0]
    return found.seq


async def _batch(stream: ObjectStream, record: ObjectRecord, index: int, seq: int, count: int) -> list[StoredMessage]:
    """Up to `count` chunks from chunk `index` on, at least one; `seq` is where to look for it."""
    for pause_s in (*_REPLICA_PAUSES_S, 0.0):
        batch = await stream.batch(record.name, stream.chunks_subject(record.nuid), seq, count)
        # The broker counts what is left: a gap shows here, before bytes end up in the wrong place.
        if batch and record.chunks - batch[-1].pending == index + len(batch):
            return batch
        await asyncio.sleep(pause_s)
    raise _missing(record)


def _missing(record: ObjectRecord) -> ChunksMissing:
    return ChunksMissing(f"not all of its {record.chunks} chunks are in the store")


def _read_block(file: BinaryIO, digest: "hashlib._Hash") -> bytes:
    """The next chunks of a file, hashed on the way; for a thread."""
    block = file.read(_READ_BYTES)
    digest.update(block)
    return block
