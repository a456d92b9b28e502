"""What a job came to, for its submitter: the result message with its output decoded and its artifacts within reach."""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import msgspec

from headrace_contracts import codec
from headrace_contracts.errors import BlobError, BlobMismatch, JobFailed, UndecodableMessage
from headrace_contracts.file import Artifact
from headrace_contracts.job import Scalar
from headrace_contracts.result import Result, ResultError, Status, Timings, Usage
from headrace_storage.blobs.port import BlobStore

OpenBlobs = Callable[[], Awaitable[BlobStore]]

_NULLS = (b"", b"null", b"\xc0")


class ResultArtifact:
    """A file the job made. Give it to another job as input, as it is."""

    def __init__(self, artifact: Artifact, open_blobs: OpenBlobs) -> None:
        self.reference = artifact
        self._open_blobs = open_blobs

    @property
    def name(self) -> str:
        """File name, unique within the result."""
        return self.reference.name

    @property
    def size_bytes(self) -> int:
        """Size."""
        return self.reference.size_bytes

    @property
    def content_type(self) -> str:
        """Media type, as in `image/png`."""
        return self.reference.content_type

    async def read(self) -> bytes:
        """The whole file, checked against the hash in the result.

        Raises:
            BlobNotFound: it is gone.
            BlobMismatch: other bytes than the result promised.
        """
        store = await self._open_blobs()
        data = await store.get(self.reference.blob)
        if hashlib.sha256(data).hexdigest() != self.reference.sha256:
            raise BlobMismatch(self.reference.blob, "its bytes are not those the result refers to")
        return data

    async def save(self, folder: Path | str) -> Path:
        """Write the file into `folder` (made if need be), replacing one of its name; it appears only when whole.

        Raises:
            BlobNotFound: it is gone.
            BlobMismatch: other bytes than the result promised.
            BlobError: its name would lead out of the folder.
        """
        if self.name in ("", ".", "..") or any(character in self.name for character in "/\\\0"):
            raise BlobError(self.reference.blob, f"the artifact's name {self.name[:80]!r} is no plain file name")
        target = Path(folder) / self.name
        target.parent.mkdir(parents=True, exist_ok=True)
        store = await self._open_blobs()
        await store.get_to(
            self.reference.blob, target, size_bytes=self.reference.size_bytes, sha256=self.reference.sha256
        )
        return target


class JobResult:
    """The end of a job. Whether it succeeded is in `status`; `raise_for_status` insists on it."""

    def __init__(self, result: Result, open_blobs: OpenBlobs) -> None:
        self.message = result
        self.output = _output(result)
        """The task's output; None unless the job succeeded."""
        self.artifacts = tuple(ResultArtifact(artifact, open_blobs) for artifact in result.artifacts)

    def __repr__(self) -> str:
        return f"<JobResult {self.id} {self.status}>"

    @property
    def id(self) -> str:
        """Job id."""
        return self.message.id

    @property
    def model(self) -> str:
        """Model."""
        return self.message.model

    @property
    def status(self) -> Status:
        """Which of the four ends it was."""
        return self.message.status

    @property
    def text(self) -> str | None:
        """The output's text, for models that write or transcribe."""
        text = None if self.output is None else self.output.get("text")
        return text if isinstance(text, str) else None

    @property
    def error(self) -> ResultError | None:
        """Why it did not succeed."""
        return self.message.error

    @property
    def attempts(self) -> int:
        """Attempts begun."""
        return self.message.attempts

    @property
    def worker(self) -> str | None:
        """Who ran the last attempt."""
        return self.message.worker

    @property
    def timings(self) -> Timings:
        """Where the time went, in seconds."""
        return self.message.timings

    @property
    def usage(self) -> Usage:
        """What was used."""
        return self.message.usage

    @property
    def metadata(self) -> dict[str, Scalar]:
        """What was given at submit."""
        return self.message.metadata

    @property
    def created_at(self) -> datetime:
        """When the job was stored."""
        return self.message.created_at

    @property
    def started_at(self) -> datetime | None:
        """When an engine took the job in the attempt that ended it; None if none did."""
        return self.message.started_at

    @property
    def completed_at(self) -> datetime:
        """When it ended."""
        return self.message.completed_at

    def raise_for_status(self) -> "JobResult":
        """Return the result if the job succeeded.

        Raises:
            JobFailed: it failed, was canceled or expired.
        """
        if self.status is Status.SUCCEEDED:
            return self
        code, why = (self.error.code, self.error.message) if self.error else ("internal", "no reason given")
        raise JobFailed(self.id, self.status, code, why)

    def as_json(self) -> dict[str, object]:
        """The whole result as plain values that JSON has."""
        plain = msgspec.structs.replace(self.message, output=msgspec.Raw(msgspec.json.encode(self.output)))
        return msgspec.json.decode(msgspec.json.encode(plain), type=dict[str, object])


def _output(result: Result) -> dict[str, object] | None:
    """The output as plain values.

    Raises:
        UndecodableMessage: it is no map.
    """
    data = bytes(result.output)
    if data in _NULLS:
        return None
    try:
        return codec.decode(data, dict[str, object], codec.encoding_of(None, data))
    except UndecodableMessage as error:
        raise UndecodableMessage("output of a result", data, error.reason) from error
