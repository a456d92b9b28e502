"""Calls to the Linux kernel that Python has no function for. Each raises `OSError` where it is refused."""

import ctypes
import errno
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

_LINUX_CAPABILITY_VERSION_3 = 0x20080522

# Found here, once: a child that has no rights left cannot open a library.
_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, *arguments: "int | ctypes.Array[ctypes.c_char]") -> None:
    """`prctl(2)`; the arguments left out are 0."""
    words = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    words += [ctypes.c_ulong(0)] * (4 - len(words))
    _linux("prctl", option, *words)


def unshare(flags: int) -> None:
    """`unshare(2)`: leave namespaces that are shared with others."""
    _linux("unshare", flags)


def drop_capabilities() -> None:
    """`capset(2)`: none effective, permitted or inheritable."""
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    _linux("capset", header, none)


def _linux(name: str, *arguments: object) -> None:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, f"{sys.platform} has no {name}")
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
