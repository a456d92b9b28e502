"""The supervisor's hold on an engine process that a zygote forked: no child of ours, and yet as good as one."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping

import msgspec

from headrace_contracts.zygote import MAX_PACKET_BYTES, Ended, Forked, ForkEngine, FromZygote, NotForked

# A fork takes 20 ms, and several may be before us. Longer keeps a start waiting that exec would have served.
ANSWER_S = 1.0

_answers: msgspec.msgpack.Decoder[FromZygote] = msgspec.msgpack.Decoder(FromZygote)


class ZygoteUnavailable(Exception):
    """There is none, or it does not answer."""


class ForkedProcess:
    """A process of which the kernel tells that it ended, and the zygote how.

    It ends with us: the zygote kills it when our connection closes, and the kernel when our end of its lifeline does,
    should there be no zygote any more.
    """

    def __init__(self, connection: socket.socket, pid: int, handle: int, lifeline: int) -> None:
        """For `fork_engine` only."""
        self.pid = pid
        self._connection: socket.socket | None = connection
        self._handle = handle
        self._lifeline = lifeline
        self._status: int | None = None
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._hear)
        self._loop.add_reader(handle, self._gone)

    @property
    def running(self) -> bool:
        """Whether its end is not known yet."""
        return not self._over.is_set()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal: to this process, and never to one that has its number later."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    async def wait(self) -> int | None:
        """Wait for its end; its status as from `asyncio.subprocess`, None if nobody saw it: the zygote was gone."""
        await self._over.wait()
        return self._status

    def _hear(self) -> None:
        """What the zygote says: how it ended, and nothing else. A zygote that dies says nothing."""
        assert self._connection is not None
        answer = _read(self._connection)
        self._loop.remove_reader(self._connection)
        self._connection.close()
        self._connection = None
        if isinstance(answer, Ended):
            self._end(answer.status)

    def _gone(self) -> None:
        """The process has ended. How, comes at once, unless the zygote is gone, or stands still."""
        self._loop.remove_reader(self._handle)
        self._loop.call_later(ANSWER_S if self._connection is not None else 0.0, self._end, None)

    def _end(self, status: int | None) -> None:
        if not self.running:
            return
        self._status = status
        self._loop.remove_reader(self._handle)
        if self._connection is not None:
            self._loop.remove_reader(self._connection)
            self._connection.close()
        os.close(self._handle)
        os.close(self._lifeline)
        self._over.set()


async def fork_engine(path: str, environment: Mapping[str, str], descriptors: tuple[int, int, int]) -> ForkedProcess:
    """Have a zygote fork an engine process.

    Args:
        path: of the zygote's socket.
        environment: all variables of the process.
        descriptors: its ends of the pipes for frames in, frames out and stderr; ours to close.

    Raises:
        ZygoteUnavailable: there will be no process; one that is forked too late ends by itself.
    """
    lifeline, ours = os.pipe()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    received: list[int] = []
    try:
        connection.setblocking(False)
        try:
            connection.connect(path)
            request = msgspec.msgpack.encode(ForkEngine(dict(environment)))
            socket.send_fds(connection, [request], [*descriptors, lifeline])
            async with asyncio.timeout(ANSWER_S):
                await _readable(connection)
            packet, received, _, _ = socket.recv_fds(connection, MAX_PACKET_BYTES, 1)
            answer = _answers.decode(packet) if packet else None
        except (OSError, msgspec.DecodeError) as error:  # TimeoutError is an OSError
            raise ZygoteUnavailable(str(error) or type(error).__name__) from error
        if not isinstance(answer, Forked) or not received:
            raise ZygoteUnavailable(answer.reason if isinstance(answer, NotForked) else "it does not understand")
        return ForkedProcess(connection, answer.pid, received[0], ours)
    except BaseException:
        connection.close()
        os.close(ours)
        for descriptor in received:
            os.close(descriptor)
        raise
    finally:
        os.close(lifeline)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


def _read(connection: socket.socket) -> FromZygote | None:
    try:
        packet = connection.recv(MAX_PACKET_BYTES)
        return _answers.decode(packet) if packet else None
    except (OSError, msgspec.DecodeError):
        return None
