"""Workers forked from a warm parent; by another spawner where there is none, or where it does not answer."""

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from headrace_contracts.zygote import (
    MAX_PACKET_BYTES,
    ZYGOTE_VARIABLE,
    AskMemory,
    Forked,
    ForkWorker,
    FromZygote,
    Go,
    MemoryUse,
    NotForked,
    ToZygote,
)
from headrace_scaler.launchers.spawner import Spawner

# A fork takes 20 ms, and several may be before us. Longer keeps a start waiting that exec would have served.
ANSWER_S = 2.0

_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND
_answers: msgspec.msgpack.Decoder[FromZygote] = msgspec.msgpack.Decoder(FromZygote)


class ZygoteUnavailable(Exception):
    """There is no zygote, or it does not answer."""


class ZygoteSpawner:
    """A `Spawner`. Its workers are told of the zygote, so that they have their engines forked as well."""

    def __init__(self, path: Path, otherwise: Spawner) -> None:
        """
        Args:
            path: of the zygote's socket; it may appear and vanish at any time.
            otherwise: starts workers while there is no zygote.
        """
        self._path = path
        self._otherwise = otherwise
        self._log = structlog.get_logger()

    async def spawn(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, status: Path) -> int:
        """See `Spawner.spawn`.

        Raises:
            LaunchError: it cannot be started in either way.
        """
        told = {**environment, ZYGOTE_VARIABLE: str(self._path)}
        try:
            return await self._fork(ForkWorker(tuple(arguments), told, str(Path.cwd()), str(status)), log)
        except ZygoteUnavailable as error:
            self._log.warning("no zygote: a worker is started by exec, and slowly", error=str(error))
        # Told all the same: the zygote may be there by the time its engine is started.
        return await self._otherwise.spawn(arguments, told, log, status)

    async def _fork(self, request: ForkWorker, log: Path) -> int:
        try:
            descriptor = os.open(log, _LOG_FLAGS, 0o600)
        except OSError as error:
            raise ZygoteUnavailable(f"its log {log.name}: {error.strerror}") from error
        try:
            with _connected(self._path) as connection:
                match await _ask(connection, request, descriptor):
                    case Forked(pid=pid):
                        # Until it has this it would end, should we never have heard of it.
                        connection.send(msgspec.msgpack.encode(Go()))
                        return pid
                    case NotForked(reason=reason):
                        raise ZygoteUnavailable(reason)
                    case _:
                        raise ZygoteUnavailable("it does not understand")
        except OSError as error:
            raise ZygoteUnavailable(error.strerror or str(error)) from error
        finally:
            os.close(descriptor)


async def memory_of_zygote(path: Path) -> MemoryUse | None:
    """What the zygote at this socket costs; None if there is none that answers."""
    try:
        with _connected(path) as connection:
            answer = await _ask(connection, AskMemory())
    except (OSError, ZygoteUnavailable):
        return None
    return answer if isinstance(answer, MemoryUse) else None


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    try:
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


async def _ask(connection: socket.socket, request: ToZygote, *descriptors: int) -> FromZygote:
    """Send a request, and wait for the answer."""
    socket.send_fds(connection, [msgspec.msgpack.encode(request)], descriptors)
    try:
        async with asyncio.timeout(ANSWER_S):
            packet = await asyncio.get_running_loop().sock_recv(connection, MAX_PACKET_BYTES)
    except TimeoutError as error:
        raise ZygoteUnavailable(f"no answer in {ANSWER_S:g} s") from error
    try:
        return _answers.decode(packet)
    except msgspec.DecodeError as error:
        raise ZygoteUnavailable("it closed the connection" if not packet else str(error)) from error
