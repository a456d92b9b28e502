"""This side of the process that calls the library directly."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.direct import Answer
from benchmarks.rig import BenchmarkError
from headrace_contracts.model import ModelSpec
from headrace_contracts.tasks.registry import TaskInput

# The longest line either side writes: some recordings in base64.
LINE_BYTES = 64 << 20


class DirectProcess:
    """Runs inputs by the library's own call."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def run(self, inputs: Sequence[TaskInput]) -> Answer:
        """Run `inputs` one after the other.

        Raises:
            BenchmarkError: the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(inputs) + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"the direct call failed: {self._log.read_text(errors='replace')[-2000:]}")
        return msgspec.json.decode(line, type=Answer)


@contextlib.asynccontextmanager
async def direct_process(
    spec: ModelSpec, weights: Path, environment: Mapping[str, str], folder: Path
) -> AsyncIterator[DirectProcess]:
    """The process for one model, in the given environment."""
    spec_file, log = folder / "spec.json", folder / "direct.log"
    spec_file.write_bytes(msgspec.json.encode(spec))
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.direct", str(spec_file), str(weights)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment,
            limit=LINE_BYTES,
        )
    try:
        yield DirectProcess(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
