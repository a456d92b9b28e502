"""Real processes under test: a `headrace up` of its own, and waiting for what has to become true."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Self

import psutil
from lives import lives

READY = "Ctrl-C stops it"
DEADLINE_S = 60.0


async def until(true: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Wait until `true()`."""
    async with asyncio.timeout(deadline_s):
        while not true():
            await asyncio.sleep(0.02)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie does not."""
    return [process for process in processes if lives(process)]


class Up:
    """One `headrace up`, as a user starts it; killed at the end if it still runs."""

    def __init__(self, *arguments: str, nats_url: str | None = None) -> None:
        self._arguments = arguments
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("NATS_")}
        if nats_url:
            self._environment["NATS_URL"] = nats_url
        self.output: list[str] = []

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from headrace_local.cli import up; up()",
            *self._arguments,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.ended()

    @property
    def text(self) -> str:
        """Everything it has printed."""
        return "".join(self.output)

    @property
    def url(self) -> str:
        """Where its broker is."""
        return next(line.split()[-1] for line in self.output if "Headrace runs at" in line)

    def descendants(self) -> list[psutil.Process]:
        """Every process it started, and they."""
        return psutil.Process(self.process.pid).children(recursive=True)

    async def says(self, words: str) -> None:
        """Wait until it prints a line with `words`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while words not in self.text:
                line = await self.process.stdout.readline()
                assert line, f"it ended without saying {words!r}:\n{self.text}"
                self.output.append(line.decode())

    async def ended(self) -> int:
        """Wait for its end; the exit status."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            self.output.append((await self.process.stdout.read()).decode())
            return await self.process.wait()

    async def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Stop it as a terminal does, which signals the whole process group; the exit status."""
        os.killpg(self.process.pid, how)
        return await self.ended()
