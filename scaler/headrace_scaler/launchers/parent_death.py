"""Children that do not outlive us, however we end: the kernel sees to it. Linux only."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
# Loaded here: between fork and exec it would not be safe.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def dies_with_us(how: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends `how` to the child when we die, even by SIGKILL.

    It has to be used in the main thread: to the kernel, who dies is the thread that forked.
    """
    parent = os.getpid()

    def ask_the_kernel() -> None:
        if _LIBC is None:
            return
        _LIBC.prctl(_PR_SET_PDEATHSIG, how)
        if os.getppid() != parent:  # died between fork and prctl
            os.kill(os.getpid(), signal.SIGKILL)

    return ask_the_kernel
