"""`headrace` as a process, and what it said."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec


class Finished(msgspec.Struct):
    """A command that has ended."""

    code: int
    out: str
    err: str


class Command:
    """A running `headrace`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def end(self) -> Finished:
        async with asyncio.timeout(60):
            out, err = await self.process.communicate()
        finished = Finished(self.process.returncode or 0, out.decode(), err.decode())
        assert "Traceback" not in finished.err, finished.err
        return finished


Headrace = Callable[..., Awaitable[Command]]
