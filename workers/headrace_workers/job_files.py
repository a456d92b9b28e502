"""The files of one job: inputs from the object store into a folder, artifacts from the folder into the store.

An object store that does not answer is waited for, a while: what waits for it was dear.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from headrace_contracts.errors import BlobUnavailable
from headrace_contracts.file import Artifact, File
from headrace_workers.frames import OutFile
from headrace_workers.surroundings import Surroundings

T = TypeVar("T")

# Folder of the input files, inside the one for the files that the job makes.
INPUTS = ".inputs"
# How long a finished job waits for an object store that does not answer, before it goes back to the queue.
STORE_PATIENCE_S = 60.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


class JobFiles:
    """Moves the files of one job."""

    def __init__(self, around: Surroundings, scratch: Path, stopped: Callable[[], bool]) -> None:
        """`stopped` says whether the job is to stop: then nothing is waited for."""
        self._around = around
        self._scratch = scratch
        self._stopped = stopped

    async def fetch(self, files: dict[str, File]) -> dict[str, str]:
        """Bring input files into the scratch folder, size and hash checked.

        Args:
            files: input field to file.

        Returns:
            Input field to local path.

        Raises:
            BlobError: a file is missing or is not what was promised, or the store did not answer for long.
        """
        folder = self._scratch / INPUTS
        paths = {}
        for name, file in files.items():
            folder.mkdir(exist_ok=True)
            path = folder / name
            if file.inline is not None:
                path.write_bytes(file.inline)
            else:
                key, size_bytes, sha256 = file.blob, file.size_bytes, file.sha256
                assert key is not None
                assert size_bytes is not None
                assert sha256 is not None
                get_to = self._around.blobs.get_to
                await self._through_outages(partial(get_to, key, path, size_bytes=size_bytes, sha256=sha256))
            paths[name] = str(path)
        return paths

    async def store(self, files: tuple[OutFile, ...], prefix: str) -> tuple[Artifact, ...]:
        """Store what the engine made below `prefix`, and compare what the store has with what was sent.

        Raises:
            BlobError: the store refused, did not answer for long, or has other bytes.
        """
        blobs = self._around.blobs
        artifacts = []
        for file in files:
            key = prefix + file.name
            sent = await self._through_outages(partial(blobs.put, key, self._scratch / file.name, file.content_type))
            kept = await self._through_outages(partial(blobs.stat, key))
            if (kept.size_bytes, kept.sha256) != (sent.size_bytes, sent.sha256):
                raise BlobUnavailable(key, "the store has other bytes than were sent")
            artifacts.append(kept.as_artifact(file.name))
        return tuple(artifacts)

    async def _through_outages(self, operation: Callable[[], Awaitable[T]]) -> T:
        give_up_at = self._around.clock.monotonic() + STORE_PATIENCE_S
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await operation()
            except BlobUnavailable:
                if self._stopped() or self._around.clock.monotonic() > give_up_at:
                    raise
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
