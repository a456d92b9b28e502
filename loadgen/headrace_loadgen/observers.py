"""Those who watch while a run goes on: what is stored, what is overheard, and what workers take."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import psutil

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.names import Bucket, Stream, job_id_of_subject
from headrace_loadgen import evidence
from headrace_loadgen.journal import Journal
from headrace_loadgen.records import AttemptsSeen, Sample, StoredMessage
from headrace_loadgen.streams import read_batch
from headrace_loadgen.system.fleet import Worker
from headrace_storage.connection import Connection

# Soon enough for "no start after the end"; rare enough to cost the broker nothing.
LOOK_EVERY_S = 0.25
SAMPLE_EVERY_S = 1.0


class ResultsRecorder:
    """Writes down every result soon after it was stored. Run `record` as a task."""

    def __init__(self, connection: Connection, folder: Path, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._journal: Journal[StoredMessage] = Journal(folder / evidence.SEEN)
        self._next = 1
        self.ended: set[str] = set()
        """Ids of jobs that have a result."""

    async def record(self) -> None:
        """Look again and again, until canceled."""
        while True:
            # A fault; what is stored meanwhile is read afterwards.
            with contextlib.suppress(BrokerUnavailable):
                await self.catch_up()
            await asyncio.sleep(LOOK_EVERY_S)

    async def catch_up(self) -> None:
        """Read what is new.

        Raises:
            BrokerUnavailable: no answer.
        """
        while batch := await read_batch(self._connection, self._clock, Stream.RESULTS, "results.>", self._next):
            for message in batch:
                self._journal.write(message)
                self.ended.add(job_id_of_subject(message.subject))
            self._next = batch[-1].sequence + 1


async def overhear_attempts(connection: Connection, folder: Path, clock: Clock) -> None:
    """Write down every record of attempts that anybody writes, as long as the connection lives."""
    journal: Journal[AttemptsSeen] = Journal(folder / evidence.ATTEMPTS)

    async def on_message(message: object) -> None:
        subject: str = getattr(message, "subject", "")
        data: bytes = getattr(message, "data", b"")
        journal.write(AttemptsSeen(clock.monotonic(), subject, data))

    with connection.errors():
        await connection.nc.subscribe(f"$KV.{Bucket.ATTEMPTS}.>", cb=on_message)


async def sample_workers(workers: Sequence[Worker], folder: Path, clock: Clock) -> None:
    """Write down memory and open files of every supervisor, until canceled."""
    with Journal[Sample](folder / evidence.SAMPLES) as journal:
        while True:
            for worker in workers:
                try:
                    process = psutil.Process(worker.pid)
                    rss_bytes, open_files = process.memory_info().rss, process.num_fds()
                except psutil.NoSuchProcess:
                    continue
                journal.write(Sample(clock.monotonic(), worker.pid, rss_bytes, open_files))
            await asyncio.sleep(SAMPLE_EVERY_S)
