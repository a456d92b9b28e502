"""What is done to a process shows, in all of its threads."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator

import pytest_asyncio

from headrace_loadgen.nemesis.processes import send, state, stop_for, until_state

PROGRAM = """
import threading, time
for _ in range(8):
    threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
"""


@pytest_asyncio.fixture
async def process() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


async def test_a_frozen_process_goes_on(process: asyncio.subprocess.Process) -> None:
    assert await stop_for(process.pid, 0.05) == "T"
    assert await until_state(process.pid, "SR") in "SR"


async def test_a_killed_process_is_gone(process: asyncio.subprocess.Process) -> None:
    assert send(process.pid, signal.SIGKILL)
    assert await until_state(process.pid, "Z ") in ("Z", "")
    await process.wait()
    assert state(process.pid) == ""
    assert not send(process.pid, signal.SIGKILL)
    assert await stop_for(process.pid, 1.0) == ""
