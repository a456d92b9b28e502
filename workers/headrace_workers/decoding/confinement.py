"""The rights that a process takes away from itself, in layers. Each holds alone; none can be undone.

    namespaces   no network, no other process's shared memory, no mounts of the host's       (the nursery, once)
    root         its file system is one empty folder that has no name any more
    user         `nobody` where the worker is root; no groups, no capabilities
    limits       memory, CPU seconds, size of a file, no new descriptor, no new process, no core dump
    seccomp      no system call beside those that decoding takes

What a machine does not have is known before the first file comes, and told; a layer that it has must then hold each
time, or nothing is decoded.
"""

import contextlib
import math
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import assert_never

from headrace_workers.decoding import kernel, seccomp
from headrace_workers.decoding.frames import Bounds

_NOBODY = 65_534
# Above the last capability that any kernel knows.
_CAPABILITIES = 64
_TRIAL = Bounds(audio_s=1.0, sample_rate=8000, channels=1, decode_s=1.0, decode_bytes=64 * 2**20)


class Layer(StrEnum):
    """One way in which a child is confined."""

    NAMESPACES = "namespaces"
    ROOT = "root"
    USER = "user"
    LIMITS = "limits"
    SECCOMP = "seccomp"


class Confinement:
    """Made once in the nursery, taken on in every child."""

    def __init__(self, wanted: frozenset[Layer] = frozenset(Layer)) -> None:
        """Prepare what children inherit. The process has to have one thread, and all code in memory."""
        self._wanted = wanted
        self._nursery = os.getpid()
        self._size_bytes = _address_space_bytes()
        self._empty_root: int | None = None
        self.missing: dict[Layer, str] = {}
        """Layers that this machine does not have, and why."""
        self._attempt(Layer.NAMESPACES, _leave_namespaces)
        self._attempt(Layer.ROOT, self._make_empty_root)

    @property
    def held(self) -> tuple[Layer, ...]:
        """The layers that a child takes on, in this order."""
        return tuple(layer for layer in Layer if layer in self._wanted and layer not in self.missing)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a child needs to have open until it has taken on its layers."""
        return () if self._empty_root is None else (self._empty_root,)

    def try_out(self) -> dict[Layer, str]:
        """In a first child, which ends after it: the layers that turn out to be missing."""
        failed = {}
        for layer in self.held:
            try:
                self._take_on(layer, _TRIAL)
            except OSError as error:
                failed[layer] = error.strerror or str(error)
        return failed

    def take_on(self, bounds: Bounds) -> None:
        """In a child, before it touches its file: all layers of `held`.

        Raises:
            OSError: one does not hold; the child must end.
        """
        for layer in self.held:
            self._take_on(layer, bounds)

    def die_with_nursery(self) -> None:
        """Be killed when the nursery dies: nobody else would end this process."""
        if sys.platform == "linux":
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._nursery:
            os._exit(1)

    def _take_on(self, layer: Layer, bounds: Bounds) -> None:
        match layer:
            case Layer.NAMESPACES:
                pass  # inherited
            case Layer.ROOT:
                self._enter_empty_root()
            case Layer.USER:
                self._become_nobody()
            case Layer.LIMITS:
                self._limit(bounds)
            case Layer.SECCOMP:
                kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
                seccomp.forbid_system_calls()
            case _:
                assert_never(layer)

    def _attempt(self, layer: Layer, action: Callable[[], None]) -> None:
        if layer in self._wanted:
            try:
                action()
            except OSError as error:
                self.missing[layer] = error.strerror or str(error)

    def _make_empty_root(self) -> None:
        folder = tempfile.mkdtemp(prefix="headrace-empty-")
        try:
            self._empty_root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        finally:
            # A folder without a name stays empty: the kernel lets nobody make anything in it.
            Path(folder).rmdir()

    def _enter_empty_root(self) -> None:
        assert self._empty_root is not None
        os.fchdir(self._empty_root)
        os.chroot(".")
        # Whoever has a folder open from before can leave by it.
        os.close(self._empty_root)

    def _become_nobody(self) -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            for capability in range(_CAPABILITIES):
                with contextlib.suppress(OSError):  # a number that this kernel does not know
                    kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        kernel.drop_capabilities()
        # Nobody may look into its memory, not even another child.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        # A change of the user clears it.
        self.die_with_nursery()

    def _limit(self, bounds: Bounds) -> None:
        memory = self._size_bytes + bounds.decode_bytes
        # Later than the nursery's clock, which says more: for a nursery that is held up itself.
        cpu_s = math.ceil(bounds.decode_s) + 1
        for which, soft, hard in (
            (resource.RLIMIT_AS, memory, memory),
            (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
            (resource.RLIMIT_FSIZE, bounds.output_bytes, bounds.output_bytes),
            (resource.RLIMIT_NOFILE, 0, 0),
            (resource.RLIMIT_NPROC, 0, 0),
            (resource.RLIMIT_CORE, 0, 0),
        ):
            resource.setrlimit(which, (soft, hard))


def _leave_namespaces() -> None:
    """A network without any device, not even a loopback; without root, inside a user namespace of its own."""
    alone = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWNS
    try:
        kernel.unshare(alone)
    except PermissionError:
        kernel.unshare(alone | kernel.CLONE_NEWUSER)


def _address_space_bytes() -> int:
    """What this process has mapped already: libraries, mostly."""
    sizes = Path("/proc/self/statm")
    return int(sizes.read_text().split()[0]) * resource.getpagesize() if sizes.exists() else 0
