"""The zygote itself: takes requests at a unix socket, forks, and tells how what it forked ended.

One thread, no event loop, no model: a fork copies nothing but the thread that forks, and whatever another one held or
waited for is held or waited for ever after. It reads no job and no weights. Its children live on when it ends.
"""

import contextlib
import gc
import os
import selectors
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from headrace_contracts.zygote import (
    ENGINE_DESCRIPTORS,
    MAX_PACKET_BYTES,
    WORKER_DESCRIPTORS,
    AskMemory,
    Ended,
    Forked,
    ForkEngine,
    ForkWorker,
    FromZygote,
    MemoryUse,
    NotForked,
    ToZygote,
)
from headrace_workers.zygote.offspring import HANDLED, be_engine, be_worker

_PEER = struct.Struct("3i")
"""Process, user and group at the other end of a unix socket."""

_requests: msgspec.msgpack.Decoder[ToZygote] = msgspec.msgpack.Decoder(ToZygote)


@dataclass
class _Child:
    """A process that was forked and is not known to have ended."""

    pid: int
    handle: int
    """Descriptor that becomes readable at its end."""
    status: str
    """File for the line about its end; empty: none."""
    connection: socket.socket | None = None
    """An engine's: it is told there how it ended, and ends when this closes."""


class Zygote:
    """Serves one socket until it is told to end."""

    def __init__(
        self,
        listener: socket.socket,
        libraries: tuple[str, ...],
        starter: int | None = None,
        *,
        takes_along: bool = False,
    ) -> None:
        """Everything is imported by now.

        Args:
            listener: SEQPACKET unix socket, listening.
            libraries: what is imported, for whoever asks.
            starter: descriptor whose end of file ends the zygote; None: none does.
            takes_along: that ends its children, too: without their starter, and its broker, they are of no use.
        """
        self._listener = listener
        self._takes_along = takes_along
        self._libraries = libraries
        self._children: dict[int, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._log = structlog.get_logger()
        self._serving = True
        listener.setblocking(False)
        self._watch(listener, self._accept)
        if starter is not None:
            self._watch(starter, lambda: self._look_at(starter))
        # What was made so far is shared with all children: the collector shall not touch, and so copy, its pages.
        gc.collect()
        gc.freeze()
        gc.disable()

    def main(self) -> None:
        """Until the starter is gone."""
        while self._serving:
            for key, _ in self._selector.select():
                # One event may have ended what another one is about.
                if key.fd in self._selector.get_map():
                    act: Callable[[], None] = key.data
                    act()

    def _watch(self, what: socket.socket | int, act: Callable[[], None]) -> None:
        self._selector.register(what, selectors.EVENT_READ, act)

    def _look_at(self, starter: int) -> None:
        self._serving = bool(os.read(starter, 1))
        if not self._serving and self._takes_along:
            for child in self._children.values():
                os.kill(child.pid, signal.SIGKILL)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # whoever it was has left again
            return
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        if _PEER.unpack(peer)[1] != os.geteuid():
            self._log.warning("zygote refuses another user", uid=_PEER.unpack(peer)[1])
            connection.close()
            return
        connection.setblocking(False)
        self._watch(connection, lambda: self._receive(connection))

    def _receive(self, connection: socket.socket) -> None:
        """One packet. What is no request of ours closes the connection, and nothing else."""
        descriptors: list[int] = []
        try:
            packet, descriptors, _, _ = socket.recv_fds(connection, MAX_PACKET_BYTES, ENGINE_DESCRIPTORS)
            if not packet or not self._act(_requests.decode(packet), descriptors, connection):
                self._drop(connection)
        except BlockingIOError:
            return
        except (OSError, msgspec.DecodeError) as error:
            self._log.warning("zygote closes a connection", error=str(error))
            self._drop(connection)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _act(self, request: ToZygote, descriptors: list[int], connection: socket.socket) -> bool:
        """Do what is asked; whether the connection is still needed."""
        match request:
            case ForkWorker() if len(descriptors) == WORKER_DESCRIPTORS:
                [log] = descriptors
                # It speaks for itself from here on: we close our end, and hear of it when it ends.
                self._fork(connection, lambda: be_worker(request, connection, log), request.status)
                return False
            case ForkEngine(environment=environment) if len(descriptors) == ENGINE_DESCRIPTORS:
                child = self._fork(connection, lambda: be_engine(environment, *descriptors))
                if child is not None:
                    child.connection = connection
                    _send(connection, Forked(child.pid), child.handle)
                return child is not None
            case AskMemory():
                _send(connection, self._memory())
                return True
            case _:
                return False

    def _fork(self, connection: socket.socket, become: Callable[[], object], status: str = "") -> _Child | None:
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                become()  # does not return
        except OSError as error:
            _send(connection, NotForked(error.strerror or str(error)))
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        child = _Child(pid, os.pidfd_open(pid), status)
        self._children[pid] = child
        self._watch(child.handle, lambda: self._reap(child))
        return child

    def _reap(self, child: _Child) -> None:
        _, waited = os.waitpid(child.pid, 0)
        status = os.waitstatus_to_exitcode(waited)
        del self._children[child.pid]
        self._selector.unregister(child.handle)
        os.close(child.handle)
        if child.connection is not None:
            _send(child.connection, Ended(status))
            self._drop(child.connection)
        if child.status:
            with contextlib.suppress(OSError):  # its folder may be gone: nobody wants to know
                Path(child.status).write_text(_how(status) + "\n", encoding="utf-8")

    def _drop(self, connection: socket.socket) -> None:
        """Forget a connection; an engine whose supervisor is gone ends, whatever a library of it is doing."""
        self._selector.unregister(connection)
        connection.close()
        for child in self._children.values():
            if child.connection is connection:
                child.connection = None
                os.kill(child.pid, signal.SIGKILL)

    def _memory(self) -> MemoryUse:
        rss, pss = _memory_of_self()
        return MemoryUse(rss, pss, len(self._children), self._libraries)


def _send(connection: socket.socket, message: FromZygote, *descriptors: int) -> None:
    with contextlib.suppress(OSError):  # they are gone: the next event of their connection says so
        socket.send_fds(connection, [msgspec.msgpack.encode(message)], descriptors)


def _how(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name


def _memory_of_self() -> tuple[int, int]:
    """Resident and proportional bytes; zeros where the system does not say."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return 0, 0
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kib.get("Rss", 0) << 10, kib.get("Pss", 0) << 10
