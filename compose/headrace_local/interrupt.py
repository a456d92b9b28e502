"""Ctrl-C, SIGTERM and a closed terminal cancel a command, so that it stops what it started in order."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_until_signal(
    main: Coroutine[Any, Any, T],  # Any: what a coroutine yields to the loop is the loop's affair
    on_stop: Callable[[], None],
    on_second: Callable[[], None],
) -> T | None:
    """Run `main`; the first signal cancels it, a later one asks to hurry.

    Args:
        main: the command.
        on_stop: called at the first signal.
        on_second: called at every later one, while `main` is still stopping what it started.

    Returns:
        What `main` returned; None if a signal ended it.
    """
    return asyncio.run(_run(main, on_stop, on_second))


async def _run(main: Coroutine[Any, Any, T], on_stop: Callable[[], None], on_second: Callable[[], None]) -> T | None:
    task = asyncio.create_task(main)
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            on_second()
            return
        stopping = True
        on_stop()
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not stopping:
            raise
        return None
