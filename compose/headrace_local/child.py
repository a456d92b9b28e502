"""Child processes: one file for their output, a clean stop, and never outliving us.

Each child leads a session of its own, so that Ctrl-C in a terminal reaches only us: we decide who stops, and in which
order.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from headrace_scaler.launchers.parent_death import dies_with_us

# A log is started anew when it is larger at a start; the one before is kept as `.1`.
ROTATE_BYTES = 16 << 20


class Child:
    """One run of a program, its output appended to `log`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, log_start: int) -> None:
        self._process = process
        self._log = log
        self._log_start = log_start

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        log: Path,
        when_we_die: signal.Signals,
        environment: Mapping[str, str] | None = None,
        keep_open: Sequence[int] = (),
    ) -> "Child":
        """Start `command`.

        Args:
            command: program and arguments.
            log: file for its output.
            when_we_die: what the kernel sends it if we are killed.
            environment: its variables; ours if absent.
            keep_open: file descriptors it inherits, as for a lock that is to be held until its end.

        Raises:
            OSError: there is no such program, or `log` cannot be written.
        """
        with _open_log(log) as output:
            log_start = output.tell()
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=keep_open,
                start_new_session=True,
                preexec_fn=dies_with_us(when_we_die),
            )
        return cls(process, log, log_start)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.returncode is not None

    async def wait(self) -> str:
        """Wait for its end, and say how it came: `exit status 1`, `SIGKILL`."""
        code = await self._process.wait()
        return f"exit status {code}" if code >= 0 else signal.Signals(-code).name

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL to all of its session that is left after `grace_s`; returns when it is gone."""
        if not self.ended:
            self._process.terminate()
            try:
                async with asyncio.timeout(grace_s):
                    await self._process.wait()
            except TimeoutError:
                pass
        await self.kill()

    async def kill(self) -> None:
        """End it as a crash would: SIGKILL to its whole session; returns when it is gone."""
        self.kill_now()
        await self._process.wait()

    def kill_now(self) -> None:
        """Send the SIGKILL of `kill` without waiting."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def last_words(self, *marks: str) -> str:
        """The last line of this run's output, of those that have one of `marks` if there are any."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        marked = [line for line in lines if any(mark in line for mark in marks)]
        return (marked or lines or ["it said nothing"])[-1].strip()


def _open_log(path: Path) -> BinaryIO:
    if path.is_file() and path.stat().st_size > ROTATE_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")
