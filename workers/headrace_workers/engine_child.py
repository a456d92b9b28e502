"""One life of an engine process: spawn it, speak with it, end it, and say what it ended of.

Owns the process and its pipes; knows neither jobs nor what follows from an end.
"""

import asyncio
import collections
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Self

import msgspec

from headrace_contracts.errors import ErrorCode
from headrace_contracts.model import ModelSpec
from headrace_workers.frames import LENGTH, MAX_FRAME_BYTES, Frame, FromEngine, pack

# What is kept of the engine's stderr, for whoever has to find out why it died.
LAST_LINES = 20
LINE_CHARS = 500
# A hung process that is told to abort writes where it hangs; then it is killed.
ABORT_GRACE_S = 0.5

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class End(msgspec.Struct, frozen=True):
    """What a process ended of."""

    code: ErrorCode
    message: str


class ChildEnded(Exception):
    """The engine process closed its end."""


class EngineChild:
    """A running engine process."""

    def __init__(self, process: asyncio.subprocess.Process, pipes: "_Pipes") -> None:
        self._process = process
        self._pipes = pipes
        self._last_lines: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        self._stderr = asyncio.create_task(self._read_stderr())
        self._oom_kills = _oom_kills()
        self._killed_for: End | None = None
        self._killing: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, spec: ModelSpec) -> Self:
        """Spawn a process that waits for its first frame.

        Two pipes, not a socket pair: a socket whose peer dies with something unread is reset, and what the peer had
        written last is lost with it: that a job had begun, or even that others were done.
        """
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        pipes = await _Pipes.open(ours_in, ours_out)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headrace_workers.engine_process", str(theirs_in), str(theirs_out)),
                pass_fds=[theirs_in, theirs_out],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(spec),
            )
        except OSError:
            pipes.close()
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        return cls(process, pipes)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The newest lines of its stderr. They may quote an input."""
        return tuple(self._last_lines)

    @property
    def resident_bytes(self) -> int:
        """Its resident memory; 0 once it is gone."""
        try:
            fields = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()
        except OSError:
            return 0
        return int(fields[1]) * _PAGE_BYTES

    def send(self, frame: Frame) -> None:
        """Send one frame."""
        self._pipes.outgoing.write(pack(frame))

    async def read(self) -> FromEngine:
        """The next frame.

        Raises:
            ChildEnded: there will be none.
        """
        try:
            (size,) = LENGTH.unpack(await self._pipes.reader.readexactly(LENGTH.size))
            return _decoder.decode(await self._pipes.reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ChildEnded from error

    def kill(self, why: End) -> None:
        """End the process because of `why`: by SIGABRT, so that it can write where it was, then by SIGKILL."""
        if self._process.returncode is None and self._killing is None:
            self._killed_for = why
            self._killing = asyncio.create_task(self._abort())

    async def ended(self) -> End:
        """Wait for the end of the process, and say what it was."""
        status = await self._process.wait()
        await self._stderr
        if self._killed_for is not None:
            return self._killed_for
        if status == -signal.SIGKILL and _oom_kills() > self._oom_kills:
            return End(ErrorCode.OOM_KILLED, "the system ran out of memory and killed the engine process")
        if status < 0:
            return End(ErrorCode.ENGINE_CRASHED, f"the engine process was ended by {signal.Signals(-status).name}")
        return End(ErrorCode.ENGINE_CRASHED, f"the engine process exited with status {status}")

    async def close(self) -> None:
        """Make sure that the process is gone."""
        self._pipes.close()
        if self._process.returncode is None:
            self._signal(signal.SIGKILL)
        await self._process.wait()
        await self._stderr
        if self._killing is not None:
            await self._killing

    async def _abort(self) -> None:
        self._signal(signal.SIGABRT)
        self._signal(signal.SIGCONT)  # a stopped process handles no signal but SIGKILL
        try:
            async with asyncio.timeout(ABORT_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while line := await _readline(self._process.stderr):
            self._last_lines.append(line.decode(errors="replace").rstrip()[:LINE_CHARS])


class _Pipes:
    """Our ends of the two pipes."""

    def __init__(
        self, reader: asyncio.StreamReader, incoming: asyncio.BaseTransport, outgoing: asyncio.WriteTransport
    ) -> None:
        self.reader = reader
        self._incoming = incoming
        self.outgoing = outgoing

    @classmethod
    async def open(cls, incoming: int, outgoing: int) -> Self:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_FRAME_BYTES)
        read, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(incoming, "rb"))
        write, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(outgoing, "wb"))
        return cls(reader, read, write)

    def close(self) -> None:
        self._incoming.close()
        self.outgoing.close()


_decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


async def _readline(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # a line longer than the buffer: what was buffered is dropped
        return b"\n"


def _oom_kills() -> int:
    """How often the kernel killed for memory, in any cgroup, since it was booted; 0 where it does not say."""
    try:
        with Path("/proc/vmstat").open(encoding="ascii") as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0


def _environment(spec: ModelSpec) -> dict[str, str]:
    """The engine's environment: as many threads as the model may use, and no library reaches for a hub."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(spec.resources.threads),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
