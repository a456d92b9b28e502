"""The port every blob store fits: files by key, with their hash.

A key is a path of name tokens, as in `default/tiny-shapes/seq-7/a1b2/image-0.png` (see `keys`). Stores are
async context managers: opened on entry (the bucket is created if need be), closed on exit. One conformance suite runs
over all of them.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Protocol, Self

import msgspec

from headrace_contracts.file import Artifact


class BlobInfo(msgspec.Struct, frozen=True):
    """What a store knows of one blob.

    `sha256` is lower-case hex; it is empty for a blob that was uploaded by URL, and in what S3 lists, and so is
    `content_type` there. Whoever needs them there asks `stat`.
    """

    key: str
    size_bytes: int
    sha256: str
    content_type: str
    stored_at: datetime

    def as_artifact(self, name: str) -> Artifact:
        """The reference a result carries."""
        return Artifact(name, self.key, self.sha256, self.size_bytes, self.content_type)


class BlobStore(Protocol):
    """A bucket of blobs.

    Every method may raise `BlobUnavailable` (no answer; worth another try) and `BlobForbidden` (credentials refused).
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def put(self, key: str, source: bytes | Path, content_type: str) -> BlobInfo:
        """Store `source` under `key`, replacing what was there; a reader sees the old or the new blob, never a mix.

        Returns once the store has confirmed it; size and hash in the answer are those of the bytes sent. After
        BlobUnavailable the new blob may be there all the same.

        Raises:
            BlobError: nothing can be stored under such a key.
            BlobMismatch: the file changed while it was read.
        """
        ...

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Bytes `start` to `start + length` (the end if None; shorter if the blob is).

        Raises:
            BlobNotFound: no such key.
            BlobMismatch: a whole blob was read and its hash is not the one it was stored with.
        """
        ...

    async def get_to(self, key: str, target: Path, *, size_bytes: int, sha256: str) -> None:
        """Write a blob to a file, checking size and hash on the way; `target` appears only when both are right.

        Raises:
            BlobNotFound: no such key.
            BlobMismatch: other size or hash than the caller was promised.
        """
        ...

    async def stat(self, key: str) -> BlobInfo:
        """Size, hash and time of a blob.

        Raises:
            BlobNotFound: no such key.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove a blob; no error if it is gone already."""
        ...

    def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """All blobs whose key starts with `prefix`, in no particular order; one replaced meanwhile may come twice."""
        ...

    async def presign_get(self, key: str, expires_s: float) -> str:
        """A URL that anybody may read the blob from until it expires.

        Raises:
            PresignUnsupported: this store has no URLs.
            ValueError: `expires_s` is not above 0, or longer than 7 days.
        """
        ...

    async def presign_put(self, key: str, expires_s: float) -> str:
        """A URL that anybody may upload the blob to until it expires.

        Raises:
            PresignUnsupported: this store has no URLs.
            ValueError: `expires_s` is not above 0, or longer than 7 days.
        """
        ...
