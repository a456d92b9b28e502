"""A nursery whose children do what an intruder would: `python intruder.py DEED LAYERS ARGUMENT FD`.

Everything but the deed is the real thing: the same nursery, the same confinement. A deed's answer says how far it came.
"""

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

from headrace_workers.decoding import kernel
from headrace_workers.decoding.confinement import Layer
from headrace_workers.decoding.frames import Answer, Bounds, Decoded, OutOfMemory, Refused
from headrace_workers.decoding.nursery import Nursery

DONE = "it was done"

_, DEED, LAYERS, ARGUMENT, FD = sys.argv
NURSERY = os.getpid()
libc = ctypes.CDLL(None, use_errno=True)


def read_a_file() -> None:
    assert os.read(os.open(ARGUMENT, os.O_RDONLY), 100)


def write_elsewhere() -> None:
    os.write(os.open(ARGUMENT, os.O_WRONLY | os.O_CREAT), b"x")


def connect() -> None:
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", int(ARGUMENT)))


def send_a_packet() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as connection:
        connection.sendto(b"x", ("127.0.0.1", int(ARGUMENT)))


def start_a_program() -> None:
    os.execv("/bin/true", ["true"])


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def signal_the_nursery() -> None:
    os.kill(NURSERY, signal.SIGWINCH)


def trace_the_nursery() -> None:
    check(libc.ptrace(16, NURSERY, 0, 0))  # PTRACE_ATTACH


def mount() -> None:
    check(libc.mount(b"none", b"/", b"tmpfs", ctypes.c_ulong(0), None))


def become_root() -> None:
    os.setuid(0)


def leave_the_empty_folder() -> None:
    os.chroot("..")


def run_made_up_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def take_memory() -> None:
    bytearray(512 * 2**20)


def fill_the_disk() -> None:
    for _ in range(64):
        os.write(TARGET, bytes(2**20))


def write_to_the_input() -> None:
    os.write(SOURCE, b"x")


def never_end() -> None:
    while True:
        pass


def never_end_in_silence() -> None:
    libc.sleep(3600)


def hang_up_and_live_on() -> None:
    os.closerange(max(SOURCE, TARGET) + 1, 100)
    never_end_in_silence()


def talk_without_end() -> None:
    for descriptor in range(3, 20):
        if descriptor not in (SOURCE, TARGET):
            try:
                while True:
                    os.write(descriptor, bytes(4096))
            except OSError:
                continue


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def lie() -> None:
    raise Lie


def look_around() -> None:
    """How many descriptors are open, and the names of the environment's variables."""
    open_ones = 0
    for descriptor in range(1000):
        try:
            os.fstat(descriptor)
            open_ones += 1
        except OSError:
            continue
    raise OSError(0, f"{open_ones} open; {' '.join(sorted(os.environ))}")


class Lie(Exception):
    """Ten samples were promised and none is there."""


def check(returned: int) -> None:
    if returned == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def work(source: int, target: int, bounds: Bounds) -> Answer:
    global SOURCE, TARGET
    SOURCE, TARGET = source, target
    deed: Callable[[], None] = globals()[DEED]
    try:
        deed()
    except MemoryError:
        return OutOfMemory()
    except Lie:
        return Decoded(10)
    except OSError as error:
        return Refused(error.strerror)
    return Refused(DONE)


def allow_no_more_processes() -> None:
    """The first child, which tries the layers, is the last one."""
    first = iter([os.fork])

    def fork() -> int:
        for real in first:
            return real()
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    os.fork = fork  # type: ignore[assignment]


def lose_a_layer() -> None:
    """It holds in the child that tries it, and no more in the second."""
    real, limit = os.fork, resource.setrlimit

    def fork() -> int:
        if fork.calls:
            resource.setrlimit = refuse  # type: ignore[assignment]
        fork.calls += 1
        return real()

    def refuse(which: int, limits: tuple[int, int]) -> None:
        if which == resource.RLIMIT_CORE:
            raise OSError(errno.EPERM, "not allowed to change a limit")
        limit(which, limits)

    fork.calls = 0
    os.fork = fork  # type: ignore[assignment]


if __name__ == "__main__":
    if DEED == "allow_no_more_processes":
        allow_no_more_processes()
    elif DEED == "lack_seccomp":
        kernel.PR_SET_SECCOMP = 9999
    elif DEED == "lose_a_layer":
        lose_a_layer()
    if ARGUMENT == "as a user":
        os.setgroups([])
        os.setresgid(12345, 12345, 12345)
        os.setresuid(12345, 12345, 12345)
    layers = frozenset(Layer(name) for name in LAYERS.split(",") if name)
    Nursery(socket.socket(fileno=int(FD)), work, layers).main()
