"""The record of an object in a JetStream object store, in the names of ADR-20 that all NATS clients share."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Self

import msgspec


class ObjectOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an object was cut: every chunk but the last has `max_chunk_size` bytes."""

    max_chunk_size: int = 0


class ObjectRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """An object's record, in the names of ADR-20. An object deleted by other tools is a record with `deleted`."""

    name: str
    bucket: str
    nuid: str = ""
    size: int = 0
    chunks: int = 0
    digest: str = ""
    mtime: str = ""
    deleted: bool = False
    headers: dict[str, list[str] | str] | None = None
    options: ObjectOptions | None = None

    @property
    def sha256(self) -> str:
        """The hash as hex; empty if the record has none that can be read."""
        try:
            return urlsafe_b64decode(self.digest.partition("=")[2]).hex()
        except Base64Error:
            return ""

    @property
    def content_type(self) -> str:
        """Content type, also where another client wrote the object."""
        found = (self.headers or {}).get("Content-Type") or "application/octet-stream"
        return found if isinstance(found, str) else found[0]

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """The record in a message; None if it is of no blob: deleted by another tool, a link, or nothing of ADR-20."""
        try:
            record = msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError:
            return None
        return record if record.nuid and not record.deleted else None


def digest_of(sha256: bytes) -> str:
    """The `digest` field for a hash."""
    return "SHA-256=" + urlsafe_b64encode(sha256).decode()
