"""Whether a process still runs, and waiting for its end. One that ends while it is looked at has ended."""

import asyncio

import psutil

DEADLINE_S = 60.0


def lives(process: psutil.Process | int) -> bool:
    """Whether a process, or the one of this id, is there and has not ended; a zombie has."""
    try:
        found = psutil.Process(process) if isinstance(process, int) else process
        return bool(found.is_running() and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def until_ended(process: psutil.Process | int) -> None:
    """Wait until a process has ended, whoever is to bury it."""
    async with asyncio.timeout(DEADLINE_S):
        while lives(process):
            await asyncio.sleep(0.01)


def command_of(process: psutil.Process) -> list[str]:
    """Its command line; empty when it has ended."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []
