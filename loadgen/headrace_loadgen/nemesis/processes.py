"""What can be done to a process, and how it shows."""

import asyncio
import os
import signal
from pathlib import Path

DEADLINE_S = 10.0


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; whether there was such a process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def state(pid: int) -> str:
    """One letter, as in `ps`: R, S, T (stopped), Z (dead, not yet waited for); empty if there is none.

    `T` only when every thread is: the signal reaches one after the other, and the last one could still answer.
    """
    main = _letter(Path(f"/proc/{pid}/stat"))
    if main != "T":
        return main
    threads = (_letter(stat) for stat in Path(f"/proc/{pid}/task").glob("*/stat"))
    return next((letter for letter in threads if letter not in ("T", "")), "T")


async def until_state(pid: int, wanted: str) -> str:
    """Wait until a process is in one of the states `wanted` (a space: there is none), not for ever; its state then."""
    for _ in range(round(DEADLINE_S / 0.01)):
        now = state(pid)
        if (now or " ") in wanted:
            break
        await asyncio.sleep(0.01)
    return now


async def stop_for(pid: int, duration_s: float) -> str:
    """Freeze a process for a while; its state in between, which is `T` if it worked."""
    if not send(pid, signal.SIGSTOP):
        return ""
    try:
        seen = await until_state(pid, "T ")
        await asyncio.sleep(duration_s)
        return seen if state(pid) in ("T", "") else state(pid)
    finally:
        send(pid, signal.SIGCONT)


def _letter(stat: Path) -> str:
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
