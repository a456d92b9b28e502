"""One life of an engine process: spawn it, speak with it, end it, and say what it ended of.

Owns the process and its pipes; knows neither jobs nor what follows from an end.
"""

import asyncio
import collections
import os
import signal
from pathlib import Path
from typing import Self

import msgspec

from headrace_contracts.errors import ErrorCode
from headrace_contracts.model import ModelSpec
from headrace_workers.engine_environment import engine_environment
from headrace_workers.engine_spawn import SpawnedProcess, spawn_engine
from headrace_workers.frames import LENGTH, MAX_FRAME_BYTES, Frame, FromEngine, pack
from headrace_workers.zygote.forked import ForkedProcess

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

    def __init__(self, process: SpawnedProcess, pipes: "_Pipes") -> None:
        self._process = process
        self._pipes = pipes
        self._last_lines: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        self._stderr = asyncio.create_task(self._read_stderr())
        self._oom_kills = _oom_kills()
        self._born_bytes = _resident_bytes(process.pid) if self.forked else 0
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
        ours_errors, theirs_errors = os.pipe()
        pipes = await _Pipes.open(ours_in, ours_out, ours_errors)
        try:
            process = await spawn_engine(engine_environment(spec), theirs_in, theirs_out, theirs_errors)
        except BaseException:
            pipes.close()
            pipes.close_errors()
            raise
        finally:
            for descriptor in (theirs_in, theirs_out, theirs_errors):
                os.close(descriptor)
        return cls(process, pipes)

    @property
    def forked(self) -> bool:
        """Whether it came from a zygote."""
        return isinstance(self._process, ForkedProcess)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The newest lines of its stderr. They may quote an input."""
        return tuple(self._last_lines)

    @property
    def resident_bytes(self) -> int:
        """Its resident memory, without what it was born with and shares with its zygote; 0 once it is gone."""
        return max(0, _resident_bytes(self._process.pid) - self._born_bytes)

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
        if self._process.running and self._killing is None:
            self._killed_for = why
            self._killing = asyncio.create_task(self._abort())

    async def ended(self) -> End:
        """Wait for the end of the process, and say what it was."""
        status = await self._process.wait()
        await self._stderr
        if self._killed_for is not None:
            return self._killed_for
        if status is None:
            return End(ErrorCode.ENGINE_CRASHED, "the engine process ended, and nobody was there to see how")
        if status == -signal.SIGKILL and _oom_kills() > self._oom_kills:
            return End(ErrorCode.OOM_KILLED, "the system ran out of memory and killed the engine process")
        if status < 0:
            return End(ErrorCode.ENGINE_CRASHED, f"the engine process was ended by {signal.Signals(-status).name}")
        return End(ErrorCode.ENGINE_CRASHED, f"the engine process exited with status {status}")

    async def close(self) -> None:
        """Make sure that the process is gone."""
        self._pipes.close()
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        await self._stderr
        self._pipes.close_errors()
        if self._killing is not None:
            await self._killing

    async def _abort(self) -> None:
        self._process.send_signal(signal.SIGABRT)
        self._process.send_signal(signal.SIGCONT)  # a stopped process handles no signal but SIGKILL
        try:
            async with asyncio.timeout(ABORT_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self._process.send_signal(signal.SIGKILL)

    async def _read_stderr(self) -> None:
        while line := await _readline(self._pipes.errors):
            self._last_lines.append(line.decode(errors="replace").rstrip()[:LINE_CHARS])


class _Pipes:
    """Our ends of the three pipes."""

    def __init__(self) -> None:
        """For `open` only."""
        self.reader = asyncio.StreamReader(limit=MAX_FRAME_BYTES)
        self.errors = asyncio.StreamReader()
        self.outgoing: asyncio.WriteTransport
        self._incoming: asyncio.BaseTransport
        self._errors: asyncio.BaseTransport

    @classmethod
    async def open(cls, incoming: int, outgoing: int, errors: int) -> Self:
        pipes = cls()
        pipes._incoming = await _open_reader(pipes.reader, incoming)
        pipes._errors = await _open_reader(pipes.errors, errors)
        loop = asyncio.get_running_loop()
        pipes.outgoing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(outgoing, "wb"))
        return pipes

    def close(self) -> None:
        """No more frames; what it still writes to stderr is read."""
        self._incoming.close()
        self.outgoing.close()

    def close_errors(self) -> None:
        self._errors.close()


async def _open_reader(stream: asyncio.StreamReader, descriptor: int) -> asyncio.BaseTransport:
    loop = asyncio.get_running_loop()
    protocol = asyncio.StreamReaderProtocol(stream)
    transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(descriptor, "rb"))
    return transport


_decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


async def _readline(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # a line longer than the buffer: what was buffered is dropped
        return b"\n"


def _resident_bytes(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) * _PAGE_BYTES


def _oom_kills() -> int:
    """How often the kernel killed for memory, in any cgroup, since it was booted; 0 where it does not say."""
    try:
        with Path("/proc/vmstat").open(encoding="ascii") as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0
