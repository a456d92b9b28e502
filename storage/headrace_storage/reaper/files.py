"""Which files may go: decided from a key, its age, and what results and waiting jobs say. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import Enum, auto

import msgspec

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import UndecodableMessage
from headrace_contracts.names import INPUTS_FOLDER, is_token, results_subject
from headrace_contracts.settings import ReaperSettings
from headrace_storage.blobs.port import BlobInfo
from headrace_storage.reading import Stored


class Origin(msgspec.Struct, frozen=True):
    """The job that a file belongs to."""

    tenant: str
    model: str
    job_id: str

    @property
    def results_subject(self) -> str:
        """Where the job's result is."""
        return results_subject(self.tenant, self.model, self.job_id)


class Kind(Enum):
    """What a file is, by its key."""

    ARTIFACT = auto()
    INPUT = auto()
    FOREIGN = auto()
    """Nothing of ours: kept, whatever it is."""


def kind_of(key: str) -> Kind:
    """An artifact is `<tenant>/<model>/<job_id>/<attempt>/<name>`, an input anything in `<tenant>/inputs/`."""
    parts = key.split("/")
    if len(parts) >= 3 and parts[1] == INPUTS_FOLDER and is_token(parts[0]):
        return Kind.INPUT
    if len(parts) == 5 and all(is_token(part) for part in parts[:4]):
        return Kind.ARTIFACT
    return Kind.FOREIGN


def origin_of(key: str) -> Origin:
    """The job of an artifact."""
    tenant, model, job_id, *_ = key.split("/")
    return Origin(tenant, model, job_id)


def is_old_enough(blob: BlobInfo, settings: ReaperSettings, now: datetime) -> bool:
    """Whether a file may be looked at: younger ones may belong to something that is under way."""
    match kind_of(blob.key):
        case Kind.ARTIFACT:
            age_s = settings.orphan_grace_s
        case Kind.INPUT:
            age_s = settings.input_retention_s
        case _:
            return False
    return now - blob.stored_at > timedelta(seconds=age_s)


class _NamedFile(msgspec.Struct, frozen=True):
    blob: str = msgspec.field(name="$blob")


class _NamedFiles(msgspec.Struct, frozen=True):
    artifacts: tuple[_NamedFile, ...] = ()


def files_named_by(result: Stored) -> set[str] | None:
    """Keys of a result's artifacts; None if nobody can say, as with bytes that are no result.

    Reads only what it needs: a result of a later version has its artifacts in the same place.
    """
    try:
        named = codec.decode(result.data, _NamedFiles, codec.encoding_of(result.headers, result.data))
    except UndecodableMessage:
        return None
    return {file.blob for file in named.artifacts}


def files_named_in(job: Stored) -> Iterator[str]:
    """Keys of all files that a message names, wherever in its body; none if it cannot be read: it will not run."""
    try:
        encoding = codec.encoding_of(job.headers, job.data)
        body = msgspec.msgpack.decode(job.data) if encoding is Encoding.MSGPACK else msgspec.json.decode(job.data)
    except (UndecodableMessage, msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError, TypeError):
        return
    unread: list[object] = [body]
    while unread:
        match unread.pop():
            case dict() as fields:
                named = fields.get("$blob")
                if isinstance(named, str):
                    yield named
                unread += fields.values()
            case list() as items:
                unread += items
