"""A running system, and example programs run against it."""

import asyncio
import os
import subprocess
from pathlib import Path

import msgspec

# An example waits in the queue until its model is loaded.
DEADLINE_S = 240.0


class Ran(msgspec.Struct, frozen=True):
    """What a program did."""

    status: int
    out: str
    err: str


class System:
    """Where the broker is, and an empty folder for what programs write."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    async def run(self, *command: str | Path, **environment: str) -> Ran:
        """Run a program to its end, in the folder, with nothing but NATS_URL to find the system by."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("NATS_", "S3_", "HEADRACE_"))}
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            env={**clean, "NATS_URL": self.url, **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(DEADLINE_S):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())
