"""Blobs in a dictionary: for tests, examples and a system in one process."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

from headrace_contracts.clock import Clock, SystemClock
from headrace_contracts.errors import BlobNotFound, PresignUnsupported
from headrace_storage.blobs.keys import check_existing, check_new
from headrace_storage.blobs.landing import Landing, check_sha256
from headrace_storage.blobs.port import BlobInfo


class MemoryBlobs:
    """A `BlobStore` that forgets everything with its process."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._blobs: dict[str, tuple[BlobInfo, bytes]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def put(self, key: str, source: bytes | Path, content_type: str) -> BlobInfo:
        """Keep a copy of `source`."""
        check_new(key)
        data = source if isinstance(source, bytes) else await asyncio.to_thread(source.read_bytes)
        info = BlobInfo(key, len(data), hashlib.sha256(data).hexdigest(), content_type, self._clock.now())
        self._blobs[key] = (info, data)
        return info

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The bytes kept."""
        info, data = self._find(key)
        piece = data[start:] if length is None else data[start : start + length]
        if len(piece) == len(data):
            check_sha256(key, hashlib.sha256(piece).hexdigest(), info.sha256)
        return piece

    async def get_to(self, key: str, target: Path, *, size_bytes: int, sha256: str) -> None:
        """Write the bytes to a file."""
        _, data = self._find(key)
        with Landing(key, target, size_bytes, sha256) as landing:
            landing.write(data)
            landing.finish()

    async def stat(self, key: str) -> BlobInfo:
        """What was kept."""
        return self._find(key)[0]

    async def delete(self, key: str) -> None:
        """Forget one blob."""
        self._blobs.pop(key, None)

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """The blobs there were at the first step."""
        for info, _ in list(self._blobs.values()):
            if info.key.startswith(prefix):
                yield info

    async def presign_get(self, key: str, expires_s: float) -> str:  # noqa: ARG002 - the port's
        """Not here."""
        raise PresignUnsupported(key, "blobs in memory have no URLs")

    async def presign_put(self, key: str, expires_s: float) -> str:  # noqa: ARG002 - the port's
        """Not here."""
        raise PresignUnsupported(key, "blobs in memory have no URLs")

    def _find(self, key: str) -> tuple[BlobInfo, bytes]:
        check_existing(key)
        try:
            return self._blobs[key]
        except KeyError:
            raise BlobNotFound(key) from None
