"""Starts each worker as a program of its own; what becomes of it is seen while we run, and written down."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from headrace_scaler.launchers import parent_death
from headrace_scaler.launchers.port import LaunchError

WORKER = (sys.executable, "-m", "headrace_workers")


class ExecSpawner:
    """`python -m headrace_workers ...`, by fork and exec.

    Not by asyncio's subprocesses: those kill what still runs when their event loop is closed, and workers are to go on.
    An async context manager: on exit their ends are no longer watched, and they run on.
    """

    def __init__(self, program: Sequence[str] = WORKER, dies_with_us: bool = False) -> None:
        """Nothing is started yet.

        Args:
            program: what is started, before its arguments.
            dies_with_us: the kernel is to kill the workers when this process ends, however that comes.
        """
        self._program = program
        self._when_we_die = parent_death.dies_with_us(signal.SIGKILL) if dies_with_us else None
        self._watched: dict[int, tuple[subprocess.Popen[bytes], Path]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for handle in list(self._watched):
            self._unwatch(handle)

    async def spawn(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, status: Path) -> int:
        """Start a worker; see `Spawner`."""
        try:
            with log.open("ab") as output:
                process = _Detached(
                    [*self._program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,
                    preexec_fn=self._when_we_die,
                )
        except OSError as error:
            raise LaunchError(f"the worker cannot be started: {error}") from error
        try:
            handle = os.pidfd_open(process.pid)
        except OSError as error:  # no file descriptors left
            process.kill()
            process.wait()
            raise LaunchError(f"the worker cannot be watched, so it was not started: {error}") from error
        self._watched[handle] = process, status
        asyncio.get_running_loop().add_reader(handle, self._ended, handle)
        return process.pid

    def _ended(self, handle: int) -> None:
        process, status = self._unwatch(handle)
        code = process.wait()  # it has ended, or we would not be called
        how = f"exit status {code}" if code >= 0 else signal.Signals(-code).name
        # On a full disk how it ended stays unknown; that it did is seen all the same.
        with contextlib.suppress(OSError):
            unfinished = status.with_name(status.name + ".tmp")
            unfinished.write_text(how + "\n", encoding="ascii")
            unfinished.replace(status)

    def _unwatch(self, handle: int) -> tuple[subprocess.Popen[bytes], Path]:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
        return self._watched.pop(handle)


class _Detached(subprocess.Popen[bytes]):
    """A process that may outlive us: to let go of it while it runs is no mistake, as Popen would warn."""

    def __del__(self) -> None:
        pass
