"""The reaper's rounds: which rule when, and that the trouble of one does not stop the others."""

import asyncio
from collections.abc import Awaitable, Callable

from headrace_contracts.clock import Clock
from headrace_contracts.settings import ReaperSettings
from headrace_storage.blobs.port import BlobStore
from headrace_storage.connection import Connection
from headrace_storage.leadership import Deposed, Leadership, LeaseName
from headrace_storage.reaper.attempts import sweep_attempts
from headrace_storage.reaper.consumers import restore_consumers
from headrace_storage.reaper.duty import Duty, Report, Rule, Trouble, reason_of
from headrace_storage.reaper.queue import QueueRules
from headrace_storage.reaper.survey import Survey, Surveyor
from headrace_storage.reaper.sweep import FileRules
from headrace_storage.reaper.unroutable import end_unroutable
from headrace_storage.reaper.waiting import Waiting

# The longest a job for an unknown model waits for its answer. Each look costs the broker three requests.
LOOK_EVERY_S = 2.0


class Reaper:
    """All rules, and what they remember between their turns."""

    def __init__(self, duty: Duty, blobs: BlobStore, settings: ReaperSettings) -> None:
        self._duty = duty
        self._sweep_every_s = settings.sweep_every_s
        self._files = FileRules(duty, blobs, settings)
        self._surveyor = Surveyor(duty.connection)
        self._queue = QueueRules(duty)

    async def look(self) -> None:
        """The rules for jobs: cheap, and due often."""
        survey: Survey | None = None

        async def take() -> None:
            nonlocal survey
            survey = await self._surveyor.look()

        await self._try(Rule.UNROUTABLE, take)
        if survey is None:
            return
        seen = survey
        new: list[Waiting] = []

        async def read() -> None:
            new.extend(await self._queue.read(seen))

        await self._try(Rule.CONSUMERS, lambda: restore_consumers(self._duty, seen))
        await self._try(Rule.UNROUTABLE, lambda: end_unroutable(self._duty, seen))
        await self._try(Rule.EXPIRED, read)
        await self._try(Rule.ENDED, lambda: self._queue.remove_ended(new))
        await self._try(Rule.EXPIRED, lambda: self._queue.expire(seen))

    async def sweep(self) -> None:
        """The rules for what is left over: they read much, and are in no hurry."""
        await self._try(Rule.ATTEMPTS, lambda: sweep_attempts(self._duty))
        await self._try(Rule.ARTIFACTS, self._files.sweep)

    async def run(self) -> None:
        """Look and sweep until canceled."""
        async with asyncio.TaskGroup() as tasks:
            # Beside each other: a store that hangs holds up no job.
            tasks.create_task(_repeat(self.look, LOOK_EVERY_S))
            tasks.create_task(_repeat(self.sweep, self._sweep_every_s))

    async def once(self) -> None:
        """Everything, one time."""
        await self.look()
        await self.sweep()

    async def _try(self, rule: Rule, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except Deposed:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a client stored must not end the process that looks at it
            self._duty.tell(Trouble(rule, reason_of(error)))


async def reap(
    connection: Connection, blobs: BlobStore, settings: ReaperSettings, holder: str, clock: Clock, tell: Report
) -> None:
    """Be a candidate for the lease `reaper` until canceled, and do the rounds whenever we hold it.

    Args:
        connection: the broker.
        blobs: where artifacts and inputs are, entered.
        settings: how long files are kept.
        holder: who we are, for people.
        clock: for the lease and the age of things.
        tell: takes what was done.
    """
    leadership = Leadership(connection, LeaseName.REAPER, holder, clock)
    duty = Duty(connection, clock, leadership.check, tell)
    # A new one each term: what the last one remembers is old by then.
    await leadership.lead(lambda: Reaper(duty, blobs, settings).run())


async def _repeat(act: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        await act()
        await asyncio.sleep(every_s)
