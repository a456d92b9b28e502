"""The input files of one job: fetched into its folder, and recordings decoded by a process that ends with the file."""

import asyncio
from collections.abc import Callable

from headrace_contracts.tasks.registry import TaskInput
from headrace_workers import admission
from headrace_workers.job_files import JobFiles
from headrace_workers.surroundings import Surroundings


class JobInputs:
    """Makes the files of one job ready for its engine."""

    def __init__(self, around: Surroundings, check_stop: Callable[[], None]) -> None:
        """`check_stop` raises why the job is to stop, if it is."""
        self._around = around
        self._check_stop = check_stop
        self._decoding: asyncio.Task[dict[str, str]] | None = None
        self.fetch_s = 0.0
        """Seconds that all of it took, so far."""

    def stop(self) -> None:
        """Decode no further."""
        if self._decoding is not None:
            self._decoding.cancel()

    async def ready(self, task_input: TaskInput, files: JobFiles) -> dict[str, str]:
        """Fetch every input file, size and hash checked, and put samples in the place of recordings.

        Returns:
            Input field to local path.

        Raises:
            JobError: a file is missing, or is not what was promised, or cannot be decoded.
            JobEnded, Interrupted: the job is to stop.
        """
        began = self._around.clock.monotonic()
        try:
            paths = await files.fetch(admission.files_of(task_input))
            return await self._decoded(paths) if paths else paths
        finally:
            self.fetch_s += self._around.clock.monotonic() - began

    async def _decoded(self, paths: dict[str, str]) -> dict[str, str]:
        self._decoding = asyncio.create_task(self._around.decoder.decode_inputs(self._around.spec, paths))
        try:
            await asyncio.wait([self._decoding])
            self._check_stop()
            return self._decoding.result()
        finally:
            self._decoding.cancel()
            self._decoding = None
