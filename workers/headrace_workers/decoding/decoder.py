"""The supervisor's side: a job's files in, files of samples out. One per worker."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from headrace_contracts.limits import Limits
from headrace_contracts.model import ModelSpec
from headrace_contracts.tasks.registry import Task
from headrace_workers.decoding.frames import Bounds
from headrace_workers.decoding.nursery_process import COMMAND, NurseryProcess
from headrace_workers.decoding.verdict import samples_of

# Files decoded at the same time: so many times `max_decode_bytes` is what strangers can take of the machine's memory.
AT_ONCE = 4

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL

_RECORDINGS = {Task.SPEECH_TO_TEXT: ("audio",)}


class InputDecoder:
    """Decodes files by a nursery, which it starts when it is first needed and again if it died."""

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self._command = command
        self._nursery: NurseryProcess | None = None
        self._starting = asyncio.Lock()
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._nursery is not None:
            await self._nursery.close()
            self._nursery = None

    @property
    def nursery_pid(self) -> int | None:
        """Of the process whose children decode; None before the first."""
        return None if self._nursery is None else self._nursery.pid

    async def warm_up(self) -> None:
        """Start the nursery before the first file comes.

        Raises:
            Retryable: it cannot be started.
        """
        await self._running()

    async def decode_inputs(self, spec: ModelSpec, files: dict[str, str]) -> dict[str, str]:
        """Put samples in the place of every recording: raw 16-bit mono at `SAMPLE_RATE`. The recordings are removed.

        Args:
            spec: the model; its task says which fields are recordings, its limits what they may be.
            files: input field to path.

        Raises:
            InvalidInput: a file is no recording, is over a limit, or made its decoder crash.
            Retryable: this worker cannot decode right now.
        """
        recordings = _RECORDINGS.get(spec.task, ())
        return {
            field: await self._decode(Path(path), spec.limits, field) if field in recordings else path
            for field, path in files.items()
        }

    async def _decode(self, path: Path, limits: Limits, field: str) -> str:
        bounds = bounds_of(limits)
        samples = path.with_name(f"{path.name}.samples")
        async with self._slots:
            nursery = await self._running()
            try:
                with _opened(path, os.O_RDONLY) as source, _opened(samples, _NEW_FILE) as target:
                    ended = await nursery.run(bounds, source, target)
                    samples_of(ended, bounds, field, os.fstat(target).st_size)
            except BaseException:
                samples.unlink(missing_ok=True)
                raise
        await asyncio.to_thread(path.unlink)
        return str(samples)

    async def _running(self) -> NurseryProcess:
        async with self._starting:
            if self._nursery is not None and not self._nursery.alive:
                await self._nursery.close()
                self._nursery = None
            if self._nursery is None:
                self._nursery = await NurseryProcess.start(self._command)
            return self._nursery


def takes_recordings(spec: ModelSpec) -> bool:
    """Whether jobs of this model bring files that have to be decoded."""
    return spec.task in _RECORDINGS


def bounds_of(limits: Limits) -> Bounds:
    """What one recording of a model may be and take."""
    return Bounds(
        audio_s=limits.max_audio_s,
        sample_rate=limits.max_sample_rate,
        channels=limits.max_channels,
        decode_s=limits.max_decode_s,
        decode_bytes=limits.max_decode_bytes,
    )


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
