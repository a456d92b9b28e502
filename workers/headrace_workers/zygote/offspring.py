"""What a process does that the zygote has just forked: forget the zygote, and become a worker or an engine process.

Nothing here returns into the zygote's code.
"""

import gc
import os
import random
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

import msgspec

from headrace_contracts.zygote import MAX_PACKET_BYTES, Forked, ForkWorker, Go
from headrace_workers.zygote.title import set_title

# Signals that the zygote handles, and what they do in a process that was started by itself.
_AS_EVER = ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))

HANDLED = tuple(number for number, _ in _AS_EVER)
"""Blocked around the fork: one that came before the child has handlers of its own would be lost."""

_STDERR = 2


def be_worker(ask: ForkWorker, connection: socket.socket, log: int) -> NoReturn:
    """Run `headrace worker`, once whoever asked has heard of it.

    Args:
        ask: its command line and surroundings.
        connection: to whoever asked; if it closes before `Go`, this process ends, since nobody would know of it.
        log: descriptor of its log, open for writing.
    """

    def become() -> int:
        os.setsid()
        _begin_anew(ask.environment, output=log, errors=log, kept=(connection.fileno(),))
        connection.setblocking(True)
        connection.send(msgspec.msgpack.encode(Forked(os.getpid())))
        if connection.recv(MAX_PACKET_BYTES) != msgspec.msgpack.encode(Go()):
            return 0
        os.close(connection.detach())
        os.chdir(ask.folder)
        set_title("headrace", "worker", *ask.arguments)
        from headrace_workers.__main__ import main

        return main(list(ask.arguments))

    _live(become)


def be_engine(environment: Mapping[str, str], incoming: int, outgoing: int, errors: int, lifeline: int) -> NoReturn:
    """Run an engine process on its supervisor's pipes.

    Args:
        environment: all its variables.
        incoming: descriptor of the pipe from the supervisor.
        outgoing: descriptor of the pipe to it.
        errors: descriptor of its stderr.
        lifeline: read end of a pipe whose other end only the supervisor has.
    """

    def become() -> int:
        silence = os.open(os.devnull, os.O_RDWR)
        _begin_anew(environment, output=silence, errors=errors, kept=(incoming, outgoing, lifeline))
        set_title("python", "-m", "headrace_workers.engine_process")
        from headrace_workers.engine_process import serve_forked

        return serve_forked(incoming, outgoing, lifeline)

    _live(become)


def _live(become: Callable[[], int]) -> NoReturn:
    status = 1
    try:
        for number, handler in _AS_EVER:
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        status = become()
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # noqa: BLE001 - the end of this process: as the interpreter says it
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            # Not by the interpreter's own way out, which would go through the zygote's frames.
            os._exit(status)


def _begin_anew(environment: Mapping[str, str], *, output: int, errors: int, kept: tuple[int, ...]) -> None:
    """Descriptors, variables and random numbers of our own; objects of the zygote that hold closed ones live on."""
    silence = os.open(os.devnull, os.O_RDONLY)
    for ours, standard in ((silence, 0), (output, 1), (errors, _STDERR)):
        os.dup2(ours, standard)
    _close_all_but(*kept)
    os.environ.clear()
    os.environ.update(environment)
    # It may remember the folder that the zygote's variables named.
    tempfile.tempdir = None
    random.seed()
    for library in ("numpy.random", "torch"):
        # Only where they are imported: their numbers would be the same in all children.
        if library in sys.modules:
            sys.modules[library].seed()
    gc.enable()


def _close_all_but(*kept: int) -> None:
    """Close every descriptor but the standard ones and these."""
    start = _STDERR + 1
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))
