"""The supervisor's hold on one life of the nursery: start it, give it orders, end it."""

import asyncio
import collections
import contextlib
import itertools
import os
import socket
import sys

import msgspec
import structlog

from headrace_workers.decoding.frames import (
    MAX_PACKET_BYTES,
    Abandon,
    Bounds,
    Ended,
    Frame,
    FromNursery,
    NotStarted,
    Order,
    Ready,
)
from headrace_workers.decoding.verdict import unavailable

COMMAND = (sys.executable, "-m", "headrace_workers.decoding")

# Imports and one trial take a quarter of a second; a machine that needs this long decodes nothing in time.
_START_S = 60.0
# What the interpreter may need to find its packages and to speak. Nothing else of the worker's environment goes along:
# it holds the passwords of the broker and of the store.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "TMPDIR")

_frames: msgspec.msgpack.Decoder[FromNursery] = msgspec.msgpack.Decoder(FromNursery)


class NurseryProcess:
    """A running nursery. `alive` turns false when it ends; then every order that waits has failed."""

    def __init__(self, process: asyncio.subprocess.Process, connection: socket.socket) -> None:
        """For `start` only."""
        self._process = process
        self._connection = connection
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Ended]] = {}
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._last_lines: collections.deque[str] = collections.deque(maxlen=5)
        self._stderr = asyncio.create_task(self._read_stderr())
        self._log = structlog.get_logger()
        self.alive = True
        asyncio.get_running_loop().add_reader(connection, self._receive)

    @classmethod
    async def start(cls, command: tuple[str, ...] = COMMAND) -> "NurseryProcess":
        """Start a nursery and wait until it is warm.

        Raises:
            Retryable: it cannot be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                )
        except OSError as error:
            ours.close()
            raise unavailable(f"its process did not start ({error.strerror})") from error
        nursery = cls(process, ours)
        try:
            async with asyncio.timeout(_START_S):
                ready = await nursery._ready
        except BaseException as error:
            await nursery.close()
            if isinstance(error, TimeoutError):
                raise unavailable(f"its process was not ready after {_START_S:g} s") from error
            raise
        nursery._report(ready)
        return nursery

    @property
    def pid(self) -> int:
        """Of the nursery."""
        return self._process.pid

    async def run(self, bounds: Bounds, source: int, target: int) -> Ended:
        """Decode one file in a child of its own; canceling this ends the child.

        Args:
            bounds: what it may be and take.
            source: descriptor of the file, open for reading.
            target: descriptor for the samples, open for writing.

        Raises:
            Retryable: there was no child, or the nursery died.
        """
        number = next(self._numbers)
        ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._waiting[number] = ended
        try:
            try:
                socket.send_fds(self._connection, [_packet(Order(number, bounds))], [source, target])
            except OSError as error:
                raise unavailable(f"its process takes no orders ({error.strerror})") from error
            return await ended
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                self._connection.send(_packet(Abandon(number)))
            raise
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """End the nursery and its children; returns when it is gone."""
        self._gone()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._stderr

    def _receive(self) -> None:
        """What has arrived on the socket."""
        try:
            packet = self._connection.recv(MAX_PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._gone()
            return
        match _frames.decode(packet):
            case Ready() as ready:
                self._ready.set_result(ready)
            case Ended(number=number) as ended:
                if number in self._waiting and not self._waiting[number].done():
                    self._waiting[number].set_result(ended)
            case NotStarted(number=number, reason=reason):
                if number in self._waiting and not self._waiting[number].done():
                    self._waiting[number].set_exception(unavailable(f"no process for it ({reason})"))

    def _gone(self) -> None:
        if not self.alive:
            return
        self.alive = False
        asyncio.get_running_loop().remove_reader(self._connection)
        self._connection.close()
        error = unavailable(f"its process ended ({self._last_lines[-1] if self._last_lines else 'no message'})")
        if not self._ready.done():
            self._ready.set_exception(error)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)

    def _report(self, ready: Ready) -> None:
        if not ready.missing:
            self._log.info("input decoder ready", layers=list(ready.held))
            return
        self._log.warning(
            "input decoder ready, but files of strangers are decoded with fewer barriers than Headrace has",
            layers=list(ready.held),
            missing=ready.missing,
        )

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self._last_lines.append(line.decode(errors="replace").rstrip()[:500])


def _packet(frame: Frame) -> bytes:
    return msgspec.msgpack.encode(frame)
