"""`ensure` for a long-lived asyncio process: what is not ready yet is made so by a child process."""

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

import msgspec

from headrace_contracts.errors import WeightsError
from headrace_contracts.model import ModelSpec
from headrace_workers.weights.cache import Progress
from headrace_workers.weights.ready import locate

# A library may print one line of any length; longer ones are not progress.
_LINE_BYTES = 1024 * 1024


async def ensure_in_subprocess(spec: ModelSpec, cache: Path, progress: Progress) -> Path | None:
    """The folder with a model's weights, as from `ensure`; the memory of an import is gone when it returns.

    Canceling it ends the child; what it was making is not accepted by anyone.

    Args:
        spec: the model.
        cache: folder of all cached things.
        progress: called in the event loop with each line of progress.

    Raises:
        WeightsError: says what is wrong and what to do.
    """
    ready = locate(spec, cache)
    if ready is not None or spec.weights == "none":
        return ready
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(msgspec.json.encode(spec))
        file.flush()
        command = (sys.executable, "-m", "headrace_workers.weights", file.name, "--cache", str(cache))
        return await _run(spec, command, progress)


async def _run(spec: ModelSpec, command: tuple[str, ...], progress: Progress) -> Path:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, limit=_LINE_BYTES
    )
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        async with asyncio.TaskGroup() as group:
            out = group.create_task(child.stdout.read())
            last = group.create_task(_relay(child.stderr, progress))
        code = await child.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    if code == 1:
        raise WeightsError(last.result())
    if code != 0:
        raise WeightsError(
            f"the import of {spec.weights} ended with exit code {code} ({last.result() or 'no message'}); "
            "-9 means that the system killed it, mostly for want of memory"
        )
    return Path(out.result().decode().splitlines()[-1])


async def _relay(stream: asyncio.StreamReader, progress: Progress) -> str:
    """Pass lines on until the stream ends; the last one."""
    last = ""
    async for raw in stream:
        # A progress bar draws itself over and over in one line: its last state is the news.
        line = raw.decode(errors="replace").strip().rpartition("\r")[2].strip()
        if line:
            last = line
            progress(line)
    return last
