"""A caller's keyword arguments become a job's input: checked, encoded, its files inlined or ready for upload.

Nothing is sent from here but files, by `upload`, and those only after the whole input has been accepted.
"""

import asyncio
import hashlib
import mimetypes
import os
import stat
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, TypeGuard

import msgspec

from headrace.results import ResultArtifact
from headrace_contracts import codec
from headrace_contracts.clock import Clock
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import BlobNotFound, InvalidInput
from headrace_contracts.file import Artifact, File
from headrace_contracts.limits import at_most
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import upload_key
from headrace_contracts.tasks.registry import Task, decode_input, input_type
from headrace_storage.blobs.port import BlobStore

# Larger files are uploaded: a queue of inlined recordings would fill the stream of jobs.
INLINE_BYTES = 64 * 1024

# An older upload is sent again, so that it cannot be swept while its new job, which may wait a day, is in the queue.
REUSE_UPLOAD = timedelta(hours=1)

UNKNOWN_TYPE = "application/octet-stream"


class Upload(msgspec.Struct, frozen=True):
    """A file that has to be in the blob store before its job is submitted."""

    field: str
    source: bytes | Path
    key: str
    sha256: str
    size_bytes: int
    content_type: str


class Prepared(msgspec.Struct, frozen=True):
    """An input the model will accept, encoded as MessagePack."""

    input: msgspec.Raw
    uploads: tuple[Upload, ...]


async def prepare(spec: ModelSpec, tenant: str, values: Mapping[str, object]) -> Prepared:
    """Check and encode an input for `spec`.

    Raises:
        InvalidInput: names the field, and the limit it broke.
    """
    files = file_fields(spec.task)
    uploads: list[Upload] = []
    encoded: dict[str, msgspec.Raw] = {}
    for field, value in values.items():
        plain = value
        if field in files:
            plain = await _file(field, value, tenant, spec, uploads)
        encoded[field] = _encode(field, plain)
    raw = msgspec.Raw(codec.encode(encoded, Encoding.MSGPACK))
    decode_input(spec.task, raw, Encoding.MSGPACK, spec.limits)
    return Prepared(raw, tuple(uploads))


def file_fields(task: Task) -> frozenset[str]:
    """Names of the task's input fields that take a file."""
    return frozenset(field.name for field in msgspec.structs.fields(input_type(task)) if field.type is File)


async def upload(store: BlobStore, wanted: Upload, clock: Clock) -> None:
    """Store a file under its hash, unless it is there already.

    Raises:
        InvalidInput: the file changed since it was checked.
        BlobError: the store did not take it.
    """
    try:
        there = await store.stat(wanted.key)
    except BlobNotFound:
        pass
    else:
        same = there.sha256 == wanted.sha256 and there.size_bytes == wanted.size_bytes
        if same and clock.now() - there.stored_at < REUSE_UPLOAD:
            return
    stored = await store.put(wanted.key, wanted.source, wanted.content_type)
    if stored.sha256 != wanted.sha256:
        raise InvalidInput(f"input.{wanted.field}", "the file changed while it was being uploaded")


async def _file(field: str, value: object, tenant: str, spec: ModelSpec, uploads: list[Upload]) -> object:
    """The message's form of a file; what is no file is left for the input's own check to refuse."""
    source: bytes | Path
    match value:
        case ResultArtifact():
            return _reference(value.reference)
        case Artifact():
            return _reference(value)
        case str():
            raise InvalidInput(f"input.{field}", "text is no file: give a pathlib.Path or bytes; URLs are not fetched")
        case Path():
            source, size_bytes = await asyncio.to_thread(_open_path, field, value, spec.limits.max_file_bytes)
            name = value.name
        case bytes() | bytearray() | memoryview():
            source, name = bytes(value), ""
            size_bytes = len(source)
        case _ if _is_open_file(value):
            source = await asyncio.to_thread(_read_open, field, value, spec.limits.max_file_bytes)
            name, size_bytes = str(getattr(value, "name", "")), len(source)
        case _:
            return value
    at_most(field, size_bytes, spec.limits.max_file_bytes, "bytes")
    content_type = mimetypes.guess_type(name)[0] or UNKNOWN_TYPE
    if isinstance(source, bytes) and size_bytes <= INLINE_BYTES:
        return File(inline=source, content_type=content_type)
    sha256 = await asyncio.to_thread(_sha256, source)
    wanted = Upload(field, source, upload_key(tenant, sha256), sha256, size_bytes, content_type)
    uploads.append(wanted)
    return File(blob=wanted.key, sha256=sha256, size_bytes=size_bytes, content_type=content_type)


def _reference(artifact: Artifact) -> File:
    return File(
        blob=artifact.blob,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        content_type=artifact.content_type,
    )


def _is_open_file(value: object) -> TypeGuard[IO[bytes]]:
    return callable(getattr(value, "read", None))


def _open_path(field: str, path: Path, limit_bytes: int) -> tuple[bytes | Path, int]:
    """What to send of a file, and its size: the bytes of a small one, or of a pipe; else the path."""
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                data = file.read(limit_bytes + 1)
                return data, len(data)
            size_bytes = file.seek(0, os.SEEK_END)
            if size_bytes > INLINE_BYTES:
                return path, size_bytes
            file.seek(0)
            data = file.read(size_bytes)
            return data, len(data)
    except OSError as error:
        raise InvalidInput(f"input.{field}", f"cannot read {path}: {error.strerror}") from error


def _read_open(field: str, file: IO[bytes], limit_bytes: int) -> bytes:
    """The rest of an open file, or one byte more than the limit."""
    data = file.read(limit_bytes + 1)
    if not isinstance(data, bytes):
        raise InvalidInput(f"input.{field}", 'the file is open as text: open it with mode "rb"')
    return data


def _sha256(source: bytes | Path) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encode(field: str, value: object) -> msgspec.Raw:
    try:
        return msgspec.Raw(codec.encode(value, Encoding.MSGPACK))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"input.{field}", f"{type(value).__name__} cannot be sent: {error}") from error
