"""A file that appears only when it is whole: written beside its target, checked, then renamed."""

import hashlib
import secrets
from pathlib import Path
from typing import Self

from headrace_contracts.errors import BlobMismatch


class Landing:
    """Where a blob becomes the file `target`; on leaving without `finish` nothing of it stays.

    Blocking: call it from a thread, or with small pieces. Errors of the local disk are plain OSErrors.
    """

    def __init__(self, key: str, target: Path, size_bytes: int, sha256: str) -> None:
        self._key = key
        self._target = target
        self._size_bytes = size_bytes
        self._sha256 = sha256
        # In the same folder, since a rename is atomic only within one file system.
        self._part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        self._digest = hashlib.sha256()
        self._written_bytes = 0

    def __enter__(self) -> Self:
        self._file = self._part.open("xb")
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        """Append `piece`.

        Raises:
            BlobMismatch: more bytes than were promised; the rest need not be fetched.
        """
        self._written_bytes += len(piece)
        if self._written_bytes > self._size_bytes:
            raise BlobMismatch(self._key, f"has more than the {self._size_bytes} bytes that its reference says")
        self._digest.update(piece)
        self._file.write(piece)

    def finish(self) -> None:
        """Put the file in its place.

        Raises:
            BlobMismatch: size or hash is not the one promised.
        """
        if self._written_bytes != self._size_bytes:
            reason = f"has {self._written_bytes} bytes and its reference says {self._size_bytes}"
            raise BlobMismatch(self._key, reason)
        check_sha256(self._key, self._digest.hexdigest(), self._sha256)
        self._file.close()
        self._part.replace(self._target)


def check_sha256(key: str, found: str, promised: str) -> None:
    """Raise BlobMismatch if the hash of a blob (hex) is not the one it was stored or referred to with."""
    if found != promised:
        raise BlobMismatch(key, f"has sha256 {found} and should have {promised}")
