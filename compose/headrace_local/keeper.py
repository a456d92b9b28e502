"""Keeps a program running: starts it again when it ends by itself, ever more slowly when that does not help.

The pace is a pure function of how long the runs last; what is kept is anything that can be started and waited for.
"""

import asyncio
from collections.abc import Callable
from typing import NoReturn, Protocol

import msgspec

from headrace_contracts.clock import Clock
from headrace_contracts.errors import HeadraceError

# A program that ran this long was started well: its end is news, not the next round of a crash loop.
STEADY_S = 60.0
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
# From here on a start is unlikely to help without somebody looking.
LOOPING_AFTER = 3


class Pace(msgspec.Struct, frozen=True):
    """How often in a row the program has ended early."""

    early_ends: int = 0

    def after_run(self, ran_s: float) -> "Pace":
        """The pace after a run of `ran_s` seconds."""
        return Pace(1 if ran_s >= STEADY_S else self.early_ends + 1)

    @property
    def delay_s(self) -> float:
        """Seconds until the next start."""
        return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self.early_ends - 1, 10))

    @property
    def looping(self) -> bool:
        """Whether the program keeps ending right after its start."""
        return self.early_ends >= LOOPING_AFTER


class Restartable(Protocol):
    """A program that can be started and waited for."""

    async def start(self) -> None:
        """Start it.

        Raises:
            HeadraceError: it cannot be started; nothing of it runs.
        """
        ...

    async def wait(self) -> str:
        """Wait for its end, and say how it came."""
        ...


class Ended(msgspec.Struct, frozen=True):
    """A program ended, and will be started again."""

    name: str
    how: str
    pace: Pace


async def keep_running(name: str, program: Restartable, clock: Clock, on_end: Callable[[Ended], None]) -> NoReturn:
    """Wait for the end of `program`, which runs, and start it again; until canceled.

    Args:
        name: for reports.
        program: what to keep.
        clock: for the length of its runs.
        on_end: called at each end, and at each start that failed, before the pause.
    """
    pace = Pace()
    began = clock.monotonic()
    how = await program.wait()
    while True:
        pace = pace.after_run(clock.monotonic() - began)
        on_end(Ended(name, how, pace))
        await asyncio.sleep(pace.delay_s)
        began = clock.monotonic()
        try:
            await program.start()
        except HeadraceError as error:
            how = str(error)
        else:
            how = await program.wait()
