"""While a job is on this worker: has it ended elsewhere, and is its delivery still ours?

A cancel is told by a message that may be lost; the result it left is not. And a worker that lost its lease to an outage
is no worker that died: it says so, or the job would be charged for a crash.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from headrace_contracts.attempts import excused
from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.job import Job
from headrace_storage.attempts import change_attempts
from headrace_storage.results import has_ended
from headrace_workers.lease import Lease
from headrace_workers.surroundings import Surroundings


class JobWatch:
    """Looks at every renewal of the lease, and after every reconnect."""

    def __init__(self, around: Surroundings, job: Job, lease: Lease, delivery: int, ended: Callable[[], None]) -> None:
        """`ended` is called once if somebody else has ended the job."""
        self._around = around
        self._job = job
        self._lease = lease
        self._delivery = delivery
        self._ended = ended

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Watch until the block ends."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def _watch(self) -> None:
        reconnected = asyncio.Event()
        stop_listening = self._around.connection.on_reconnect(reconnected.set)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._lease.renewal_s):
                        await reconnected.wait()
                reconnected.clear()
                if await self._look():
                    return
        finally:
            stop_listening()

    async def _look(self) -> bool:
        """Whether there is nothing more to watch for."""
        job, connection = self._job, self._around.connection
        try:
            if await has_ended(connection, job.tenant, job.model, job.id):
                self._ended()
                return True
            if self._lease.lapsed:
                await change_attempts(
                    connection, job.tenant, job.model, job.id, lambda known: excused(known, self._delivery)
                )
        except BrokerUnavailable:
            return False
        return False
