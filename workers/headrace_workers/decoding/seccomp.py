"""The system calls that are left to a child: a seccomp filter for this process, Linux on x86-64 and aarch64.

What is not listed fails with EPERM, as libraries can stand; what only an intruder asks for ends the process.
"""

import ctypes
import errno
import functools
import platform
import struct
from collections.abc import Mapping, Sequence

from headrace_workers.decoding import kernel

_SECCOMP_MODE_FILTER = 2

# Instructions of classic BPF: load a word of the call's data, jump if equal, jump if greater or equal, jump if any bit
# is set, return.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _FAIL, _ALLOW = 0x80000000, 0x00050000 | errno.EPERM, 0x7FFF0000
# Offsets in `struct seccomp_data`; of an argument, the low half (both machines are little-endian).
_NUMBER, _MACHINE, _THIRD_ARGUMENT = 0, 4, 16 + 2 * 8
_INSTRUCTION = struct.Struct("HBBI")
_PROT_EXEC = 4
# Numbers from here on are calls of the x32 ABI, whose list is another one.
_X32 = 0x40000000

# Name to number on x86-64 and on aarch64 (`asm/unistd_64.h`, `asm-generic/unistd.h`).
_Calls = Mapping[str, tuple[int, int]]

# Memory, the three open descriptors, clocks, locks, random numbers, the end.
ALLOWED: _Calls = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
}

# Allowed, but never for memory that can be run.
NOT_EXECUTABLE: _Calls = {"mmap": (9, 222), "mprotect": (10, 226)}

# No decoder has a reason for these, so it is no decoder any more.
FATAL: _Calls = {
    "socket": (41, 198),
    "connect": (42, 203),
    "execve": (59, 221),
    "kill": (62, 129),
    "ptrace": (101, 117),
    "mount": (165, 40),
    "setns": (308, 268),
    "unshare": (272, 97),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "bpf": (321, 280),
    "execveat": (322, 281),
    "io_uring_setup": (425, 425),
}

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def forbid_system_calls() -> None:
    """Leave this process with what `ALLOWED` lists, for good.

    Raises:
        OSError: the kernel has no seccomp, or no filter for this machine.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no list of system calls for {machine}")
    program = filter_program(machine)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // _INSTRUCTION.size, ctypes.addressof(code))
    kernel.prctl(kernel.PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(header, len(header)))


@functools.cache
def filter_program(machine: str) -> bytes:
    """The filter for `machine`, as the kernel takes it: instructions of 8 bytes."""
    column, audit_number = _MACHINES[machine]
    program = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, audit_number),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    for numbers, instructions in (
        (_column(ALLOWED, column), [(_RETURN, 0, 0, _ALLOW)]),
        (
            _column(NOT_EXECUTABLE, column),
            [
                (_LOAD, 0, 0, _THIRD_ARGUMENT),
                (_ANY_BIT, 0, 1, _PROT_EXEC),
                (_RETURN, 0, 0, _FAIL),
                (_RETURN, 0, 0, _ALLOW),
            ],
        ),
        (_column(FATAL, column), [(_RETURN, 0, 0, _KILL)]),
    ):
        program += _for_each(numbers, instructions)
    program.append((_RETURN, 0, 0, _FAIL))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


_Instruction = tuple[int, int, int, int]


def _column(calls: _Calls, column: int) -> list[int]:
    return [numbers[column] for numbers in calls.values()]


def _for_each(numbers: Sequence[int], instructions: list[_Instruction]) -> list[_Instruction]:
    """Run `instructions` if the call is one of `numbers`, else step over them; they return."""
    last = len(numbers) - 1
    jumps = [(_EQUAL, last - at, 0 if at < last else len(instructions), number) for at, number in enumerate(numbers)]
    return [*jumps, *instructions]
