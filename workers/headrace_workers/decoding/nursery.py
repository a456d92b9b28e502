"""The nursery: a warm process that forks one child per file, ends what is late, and tells how each ended.

It has one thread and reads no file itself. It ends when the supervisor's end of the socket closes.
"""

import gc
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import NoReturn

import msgspec

from headrace_workers.decoding.confinement import Confinement, Layer
from headrace_workers.decoding.frames import (
    CONFINED,
    MAX_ANSWER_BYTES,
    MAX_PACKET_BYTES,
    NOT_CONFINED,
    Abandon,
    Answer,
    Bounds,
    Ended,
    Frame,
    NotStarted,
    Order,
    Ready,
    ToNursery,
)

Work = Callable[[int, int, Bounds], Answer]
"""What a child does, confined: source and target descriptor, bounds; nothing is open beside them."""

# Exit status of a child without an answer.
_FAILED = 70

_orders: msgspec.msgpack.Decoder[ToNursery] = msgspec.msgpack.Decoder(ToNursery)


class Nursery:
    """Serves one supervisor."""

    def __init__(self, connection: socket.socket, work: Work, wanted: frozenset[Layer] = frozenset(Layer)) -> None:
        """`work` has all its code in memory: it was run here once."""
        self._connection = connection
        self._work = work
        self._confinement = Confinement(wanted)
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, _Child] = {}
        # What was made so far is shared with all children: the collector shall not touch, and so copy, its pages.
        gc.disable()
        gc.freeze()

    def main(self) -> None:
        """Until the supervisor is gone."""
        self._confinement.missing.update(self._try_out())
        self._send(Ready(self._confinement.held, {str(layer): why for layer, why in self._confinement.missing.items()}))
        self._selector.register(self._connection, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select(self._next_deadline_s()):
                child: _Child | None = key.data
                if child is not None:
                    self._hear(child)
                elif not self._receive():
                    return
            for child in list(self._children.values()):
                if not child.late and time.perf_counter() >= child.deadline:
                    child.late = True
                    os.kill(child.pid, signal.SIGKILL)

    def _receive(self) -> bool:
        """Take one frame; whether the supervisor is still there."""
        packet, descriptors, _, _ = socket.recv_fds(self._connection, MAX_PACKET_BYTES, 2)
        if not packet:
            return False
        try:
            match _orders.decode(packet):
                case Order() as order:
                    source, target = descriptors
                    self._start(order, source, target)
                case Abandon(number=number):
                    if number in self._children:
                        os.kill(self._children[number].pid, signal.SIGKILL)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _start(self, order: Order, source: int, target: int) -> None:
        answers, answer = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(answers)
            os.close(answer)
            self._send(NotStarted(order.number, error.strerror or str(error)))
            return
        if pid == 0:
            self._be_child(order.bounds, source, target, answer)
        # From here on only the child has it: it closes when the child is gone.
        os.close(answer)
        os.set_blocking(answers, False)
        child = _Child(order.number, pid, answers, time.perf_counter() + order.bounds.decode_s)
        self._children[order.number] = child
        self._selector.register(answers, selectors.EVENT_READ, child)

    def _be_child(self, bounds: Bounds, source: int, target: int, answer: int) -> NoReturn:
        """Forget everything, take on the layers, do the work, end. Never returns into the nursery's code."""
        status = _FAILED
        try:
            try:
                _close_all_but(source, target, answer, *self._confinement.descriptors)
                self._confinement.die_with_nursery()
                self._confinement.take_on(bounds)
            except OSError as error:
                os.write(answer, NOT_CONFINED + str(error).encode()[:MAX_ANSWER_BYTES])
                os._exit(status)
            os.write(answer, CONFINED)
            os.write(answer, msgspec.msgpack.encode(self._work(source, target, bounds)))
            status = 0
        finally:
            os._exit(status)

    def _hear(self, child: "_Child") -> None:
        data = os.read(child.answers, MAX_ANSWER_BYTES)
        child.said += data
        too_much = len(child.said) > MAX_ANSWER_BYTES
        if data and not too_much:
            return
        # The end of the stream is the end of the child, unless it closed its end to live on. One that is ending
        # already keeps the status that it ends with.
        os.kill(child.pid, signal.SIGKILL)
        _, status = os.waitpid(child.pid, 0)
        self._selector.unregister(child.answers)
        os.close(child.answers)
        del self._children[child.number]
        confined = child.said[:1] == CONFINED
        code = _FAILED if too_much else os.waitstatus_to_exitcode(status)
        said = bytes(child.said[1 : MAX_ANSWER_BYTES + 1])
        self._send(Ended(child.number, code, child.late, confined, said))

    def _next_deadline_s(self) -> float | None:
        """Seconds until a child is late; None if there is none."""
        deadlines = [child.deadline for child in self._children.values() if not child.late]
        return max(0.0, min(deadlines) - time.perf_counter()) if deadlines else None

    def _try_out(self) -> dict[Layer, str]:
        """What of the confinement this machine refuses, found out by a child of its own."""
        answers, answer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _close_all_but(answer, *self._confinement.descriptors)
                os.write(answer, msgspec.msgpack.encode(self._confinement.try_out()))
            finally:
                os._exit(0)
        os.close(answer)
        said = os.read(answers, MAX_PACKET_BYTES)
        os.close(answers)
        os.waitpid(pid, 0)
        return msgspec.msgpack.decode(said, type=dict[Layer, str])

    def _send(self, frame: Frame) -> None:
        self._connection.send(msgspec.msgpack.encode(frame))


class _Child:
    """A child that runs."""

    def __init__(self, number: int, pid: int, answers: int, deadline: float) -> None:
        self.number = number
        self.pid = pid
        self.answers = answers
        """Read end of its pipe."""
        self.deadline = deadline
        self.late = False
        self.said = bytearray()


def _close_all_but(*kept: int) -> None:
    """Close every other descriptor, standard ones included."""
    start = 0
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))
