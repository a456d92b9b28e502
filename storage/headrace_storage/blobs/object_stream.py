"""The wire side of a JetStream object store (ADR-20): its subjects, and requests to its stream.

Chunks of one upload are the messages of `$O.<bucket>.C.<nuid>`, in order; the record of an object is the last message
of `$O.<bucket>.M.<name in base64>`. What is done with them is decided in `chunks` and `jetstream`.
"""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import AuthorizationError, NoRespondersError
from nats.errors import Error as NatsError

from headrace_contracts.errors import BlobError, BlobForbidden, BlobUnavailable
from headrace_storage.blobs.object_record import ObjectRecord
from headrace_storage.cancelable import cancelable

_STREAM_NOT_FOUND: Final = 10059
_STREAM_EXISTS: Final = 10058
_STREAM_FULL: Final = 10077
_NO_MESSAGE: Final = 10037
_SEQUENCE_NOT_FOUND: Final = 10043
_WRONG_LAST_SEQUENCE: Final = 10071

# One answer of a batched get. Larger saves round trips on far-away brokers; smaller lets a slow link finish in time.
BATCH_BYTES: Final = 2 * 1024 * 1024


class StoredMessage(msgspec.Struct, frozen=True):
    """A message of the stream; `pending` is how many of the subjects asked for come after it."""

    subject: str
    seq: int
    time: datetime
    data: bytes = b""
    pending: int = 0


class _ApiError(msgspec.Struct, frozen=True):
    code: int
    err_code: int = 0
    description: str = ""


class _StreamState(msgspec.Struct, frozen=True):
    subjects: dict[str, int] | None = None


class _ApiReply(msgspec.Struct, frozen=True):
    """The parts we read of any answer of the JetStream API."""

    error: _ApiError | None = None
    message: StoredMessage | None = None
    seq: int = 0
    state: _StreamState | None = None


class Replaced(Exception):
    """Another writer got to the record first."""


class ObjectStream:
    """Requests to the stream of one bucket. Each waits at most `timeout_s`.

    Any may raise BlobUnavailable, BlobForbidden, or BlobError for what will fail again.
    """

    def __init__(self, nc: Client, bucket: str, timeout_s: float) -> None:
        self._nc = nc
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._timeout_s = timeout_s

    def chunks_subject(self, nuid: str) -> str:
        """Subject of all chunks of one upload."""
        return f"$O.{self._bucket}.C.{nuid}"

    def record_subject(self, name: str) -> str:
        """Subject of an object's record; `*` stands for all objects."""
        return f"$O.{self._bucket}.M.{name if name == '*' else urlsafe_b64encode(name.encode()).decode()}"

    async def ensure(self, max_bytes: int | None) -> None:
        """Create the stream in file storage unless it is there, with whatever settings it has."""
        reply = await self._api(self._bucket, f"STREAM.INFO.{self._stream}", b"")
        if reply.error is None:
            return
        if reply.error.err_code != _STREAM_NOT_FOUND:
            raise self._refusal(self._bucket, reply.error)
        config = {
            "name": self._stream,
            "subjects": [f"$O.{self._bucket}.C.>", f"$O.{self._bucket}.M.>"],
            "storage": "file",
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "max_bytes": -1 if max_bytes is None else max_bytes,
        }
        reply = await self._api(self._bucket, f"STREAM.CREATE.{self._stream}", msgspec.json.encode(config))
        # Created by another process since we looked: that one is as good.
        if reply.error is not None and reply.error.err_code != _STREAM_EXISTS:
            raise self._refusal(self._bucket, reply.error)

    async def last(self, key: str, subject: str) -> StoredMessage | None:
        """The last message of a subject.

        Asked of the stream's leader: a direct get may be answered by a replica that has not seen the newest record,
        and a blob that is missing ends a job.
        """
        body = msgspec.json.encode({"last_by_subj": subject})
        reply = await self._api(key, f"STREAM.MSG.GET.{self._stream}", body)
        if reply.error is not None and reply.error.err_code != _NO_MESSAGE:
            raise self._refusal(key, reply.error)
        return reply.message

    async def publish_chunk(self, key: str, nuid: str, chunk: bytes) -> int:
        """Append a chunk; returns its sequence in the stream."""
        return self._published(key, await self._request(key, self.chunks_subject(nuid), chunk))

    async def publish_record(self, key: str, record: ObjectRecord, replaced_seq: int) -> None:
        """Make `record` the one record of its object, in place of the message `replaced_seq` (0: of none).

        Raises:
            Replaced: the last record is another one.
        """
        headers = {"Nats-Rollup": "sub", "Nats-Expected-Last-Subject-Sequence": str(replaced_seq)}
        subject = self.record_subject(record.name)
        answer = await self._request(key, subject, msgspec.json.encode(record), headers)
        self._published(key, answer)

    async def delete(self, key: str, seq: int) -> bool:
        """Delete one message; False if it was gone."""
        # Without no_erase the server overwrites the bytes on disk first, 30 times slower.
        body = msgspec.json.encode({"seq": seq, "no_erase": True})
        reply = await self._api(key, f"STREAM.MSG.DELETE.{self._stream}", body)
        if reply.error is not None and reply.error.err_code not in (_SEQUENCE_NOT_FOUND, _NO_MESSAGE):
            raise self._refusal(key, reply.error)
        return reply.error is None

    async def purge(self, key: str, subject: str) -> None:
        """Delete all messages of a subject."""
        body = msgspec.json.encode({"filter": subject})
        reply = await self._api(key, f"STREAM.PURGE.{self._stream}", body)
        if reply.error is not None:
            raise self._refusal(key, reply.error)

    async def uploads(self) -> list[str]:
        """The nuids of all uploads with chunks in the stream, finished or not."""
        prefix = self.chunks_subject("")
        nuids: list[str] = []
        while True:
            body = msgspec.json.encode({"subjects_filter": f"{prefix}>", "offset": len(nuids)})
            reply = await self._api(self._bucket, f"STREAM.INFO.{self._stream}", body)
            if reply.error is not None:
                raise self._refusal(self._bucket, reply.error)
            subjects = reply.state.subjects if reply.state is not None else None
            if not subjects:
                return nuids
            nuids += [subject.removeprefix(prefix) for subject in subjects]

    async def batch(self, key: str, subject: str, from_seq: int, count: int) -> list[StoredMessage]:
        """The next messages of a subject (or wildcard), in order: up to `count` and BATCH_BYTES; none at the end."""
        found: list[StoredMessage] = []
        end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def take(message: Msg) -> None:
            headers = message.headers or {}
            if (status := headers.get("Status")) is None:
                found.append(_direct(headers, message.data))
            elif not end.done():
                end.set_result(status)

        inbox = self._nc.new_inbox()
        request = {"next_by_subj": subject, "seq": from_seq, "batch": count, "max_bytes": BATCH_BYTES}
        with self._errors(key):
            subscription = await self._nc.subscribe(inbox, cb=take)
            try:
                target = f"$JS.API.DIRECT.GET.{self._stream}"
                await self._nc.publish(target, msgspec.json.encode(request), reply=inbox)
                async with asyncio.timeout(self._timeout_s):
                    status = await end
            finally:
                await subscription.unsubscribe()
        if status not in ("204", "404"):
            raise BlobUnavailable(key, f"NATS answered {status} to a batched get")
        return found

    async def _api(self, key: str, name: str, body: bytes) -> _ApiReply:
        answer = await self._request(key, f"$JS.API.{name}", body)
        return msgspec.json.decode(answer.data, type=_ApiReply)

    async def _request(self, key: str, subject: str, body: bytes, headers: dict[str, str] | None = None) -> Msg:
        with self._errors(key):
            return await cancelable(self._nc.request(subject, body, timeout=self._timeout_s, headers=headers))

    def _published(self, key: str, answer: Msg) -> int:
        reply = msgspec.json.decode(answer.data, type=_ApiReply)
        if reply.error is None:
            return reply.seq
        if reply.error.err_code == _WRONG_LAST_SEQUENCE:
            raise Replaced
        raise self._refusal(key, reply.error)

    def _refusal(self, key: str, error: _ApiError) -> BlobError:
        """What an error in an answer of the JetStream API means for a blob."""
        reason = f"NATS says: {error.description} [{error.err_code}]"
        if error.err_code == _STREAM_FULL:
            return BlobUnavailable(key, f"the bucket {self._bucket!r} is full; {reason}")
        if error.code >= 500 or error.err_code == _STREAM_NOT_FOUND:
            return BlobUnavailable(key, reason)
        return BlobError(key, reason)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn errors of the connection into BlobErrors."""
        before = self._nc.last_error
        try:
            yield
        except NoRespondersError as error:
            raise BlobUnavailable(key, "no JetStream answers, or the bucket is gone") from error
        except (NatsError, OSError) as error:
            # A denied subject is told apart from silence only by an error beside the request.
            beside = self._nc.last_error
            if beside is not before and self._is_about_us(str(beside).lower()):
                raise BlobForbidden(key, f"NATS refused us: {beside}") from error
            if isinstance(error, AuthorizationError):
                raise BlobForbidden(key, "NATS refused our credentials") from error
            raise BlobUnavailable(key, f"no answer from NATS ({type(error).__name__})") from error

    def _is_about_us(self, text: str) -> bool:
        ours = (f"$o.{self._bucket}.".lower(), self._stream.lower())
        return "permissions violation" in text and any(name in text for name in ours)


def _direct(headers: dict[str, str], data: bytes) -> StoredMessage:
    """The message in an answer to a direct get."""
    return StoredMessage(
        subject=headers["Nats-Subject"],
        seq=int(headers["Nats-Sequence"]),
        time=msgspec.convert(headers["Nats-Time-Stamp"], datetime),
        data=data,
        pending=int(headers["Nats-Num-Pending"]),
    )
