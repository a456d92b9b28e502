"""How an engine process comes to be: forked by a zygote where there is one that answers, else by exec."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import Protocol

import structlog

from headrace_contracts.zygote import ZYGOTE_VARIABLE
from headrace_workers.zygote.forked import ZygoteUnavailable, fork_engine

COMMAND = (sys.executable, "-m", "headrace_workers.engine_process")


class SpawnedProcess(Protocol):
    """A process that ends with us."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    @property
    def running(self) -> bool:
        """Whether its end is not known yet."""
        ...

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it is gone."""
        ...

    async def wait(self) -> int | None:
        """Wait for its end: exit status, or the negative number of a signal; None if nobody saw which."""
        ...


class ExecedProcess:
    """A child of ours."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process

    @property
    def running(self) -> bool:
        """Whether its end is not known yet."""
        return self._process.returncode is None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def wait(self) -> int:
        """Wait for its end: exit status, or the negative number of a signal."""
        return await self._process.wait()


async def spawn_engine(environment: Mapping[str, str], incoming: int, outgoing: int, errors: int) -> SpawnedProcess:
    """Start a process that waits for its first frame.

    Args:
        environment: all its variables; ours may name a zygote.
        incoming: descriptor of its end of the pipe with frames for it.
        outgoing: descriptor of its end of the pipe with frames from it.
        errors: descriptor of its stderr.

    Raises:
        OSError: it cannot be started.
    """
    path = os.environ.get(ZYGOTE_VARIABLE)
    if path:
        try:
            return await fork_engine(path, environment, (incoming, outgoing, errors))
        except ZygoteUnavailable as error:
            structlog.get_logger().warning("no zygote: the engine is started by exec, and slowly", error=str(error))
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, str(incoming), str(outgoing)),
        pass_fds=[incoming, outgoing],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=errors,
        env=environment,
    )
    return ExecedProcess(process)
