"""One model on one worker: draws its jobs, runs as many as the engine takes, keeps the next ones ready."""

import asyncio
import math
from collections.abc import Callable
from datetime import datetime

import structlog

from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.heartbeat import EngineStatus
from headrace_contracts.job import Job
from headrace_contracts.model import runs_as
from headrace_contracts.names import Lane
from headrace_storage.control import listen_for_cancels
from headrace_storage.delivery import Delivery
from headrace_storage.puller import JobPuller
from headrace_storage.results import has_ended
from headrace_workers.engine_run import Stop
from headrace_workers.job_run import JobRun
from headrace_workers.lane_order import LaneOrder
from headrace_workers.lease import Lease
from headrace_workers.surroundings import Surroundings
from headrace_workers.watchdog import watch_for_starving

# Jobs held beyond those in the engine, so that inputs are there when it is free. More would keep them from others.
PREFETCH = 1
# A job that is held waits for the one before it. Longer jobs are left in the queue, where an idle worker finds them.
PREFETCH_BELOW_S = 5.0
# Jobs that may be behind the engine, waiting for the blob store or the broker to take what they made. While it takes
# nothing, this is how much finished work piles up on the worker's disk.
MAX_STORING = 8
# How often a busy worker looks for a job to hold. Longer leaves the engine idle between short jobs.
LOOK_EVERY_S = 0.25
PAUSE_AFTER_OUTAGE_S = 0.5


class ModelWorker:
    """Pulls and runs the jobs of one model. Run `serve` as a task; `drain` ends it."""

    def __init__(self, around: Surroundings, changed: Callable[[], None]) -> None:
        self._around = around
        self._changed = changed
        self._slots = around.spec.batching.max_size
        self._runs_as = runs_as(around.spec)
        self._puller = JobPuller(around.connection, around.spec.name)
        self._lanes = LaneOrder()
        self._jobs: dict[asyncio.Task[None], JobRun] = {}
        self._by_sequence: dict[int, asyncio.Task[None]] = {}
        self._draining = False
        self._wake = asyncio.Event()
        self._last_run_s = math.inf
        self._arrived = 0
        self._outage = ""
        self._empty_since = around.clock.now()
        """When the last job left; of no meaning while there is one."""
        self._log = structlog.get_logger().bind(model=around.spec.name)

    @property
    def jobs_in_hand(self) -> int:
        """Jobs it has, in the engine or not."""
        return len(self._jobs)

    @property
    def status(self) -> EngineStatus:
        """For the heartbeat."""
        host = self._around.host
        running = tuple(job.job.id for job in self._jobs.values() if job.job is not None and job.in_engine)
        return EngineStatus(
            model=self._around.spec.name,
            state=host.state,
            slots=self._slots,
            running=running,
            held=len(self._jobs) - len(running),
            detail=host.detail,
            idle_since=self._idle_since,
            runs_as=self._runs_as,
            cold_start=host.cold_start,
            account=host.account.total,
        )

    @property
    def _idle_since(self) -> datetime | None:
        host = self._around.host
        return max(self._empty_since, host.ready_at) if host.ready.is_set() and not self._jobs else None

    async def serve(self) -> None:
        """Pull and run until `drain`; then returns when no job is left."""
        await listen_for_cancels(self._around.connection, self._around.spec.name, self._on_cancel)
        self._around.host.on_change(self._wake.set)
        self._around.company.on_change(self._wake.set)
        async with asyncio.TaskGroup() as jobs:
            watchdog = jobs.create_task(
                watch_for_starving(
                    self._around.connection, self._around.spec.name, lambda: self._hungry, lambda: self._arrived
                )
            )
            while not self._draining:
                try:
                    for delivery in await self._draw():
                        self._start(jobs, delivery)
                except BrokerUnavailable as error:
                    self._tell_outage(error.reason)
                    await self._sleep(PAUSE_AFTER_OUTAGE_S)
                else:
                    self._outage = ""
            watchdog.cancel()
            for delivery in await self._puller.close():
                self._start(jobs, delivery)

    def drain(self) -> None:
        """Take no more jobs, and give back those that have not begun."""
        # No task is canceled: a canceled request of the client can lose both the cancel and the answer.
        self._draining = True
        self._puller.stop_waiting()
        self._wake.set()
        for job in self._jobs.values():
            if job.started_at is None:
                job.stop(Stop.SHUTDOWN)

    def hand_back(self) -> None:
        """The grace is over: stop running jobs at their next step and give them back."""
        for job in self._jobs.values():
            job.stop(Stop.SHUTDOWN)

    async def _draw(self) -> list[Delivery]:
        """Jobs that wait now, by lane; with a free slot, else wait for one. Empty now and then.

        Only an idle engine waits at the broker. A busy one takes what nobody waits for: else it would hold a job that
        another worker could run at once.
        """
        # Jobs whose files are being stored need no slot: the engine goes on with the next ones.
        ahead = sum(job.run_s is None for job in self._jobs.values())
        free = self._slots - ahead
        room = min(free if free > 0 else free + self._prefetch, self._slots + MAX_STORING - len(self._jobs))
        # A job on its way to the engine comes first: looking for the next one would slow it down.
        arriving = any(job.started_at is None for job in self._jobs.values())
        closed = self._around.company.closed or not self._around.host.ready.is_set()
        if room <= 0 or closed or (free <= 0 and arriving):
            await self._sleep(None)
            return []
        asked = self._lanes.next()
        for lane in asked:
            deliveries = await self._puller.take(lane, room)
            if deliveries:
                self._lanes.drew(asked, lane)
                return deliveries
        self._lanes.drew(asked, None)
        if free > 0:
            return sorted(await self._puller.wait(), key=lambda delivery: list(Lane).index(delivery.lane))
        await self._sleep(LOOK_EVERY_S)
        return []

    def _tell_outage(self, reason: str) -> None:
        """Once, and not with every try."""
        if reason != self._outage:
            self._outage = reason
            self._log.warning("no jobs from the broker", error=reason)

    @property
    def _hungry(self) -> bool:
        """Whether a job that waits should arrive at once."""
        ready = self._around.host.ready.is_set() and not self._around.company.closed
        return ready and not self._jobs and not self._draining

    @property
    def _prefetch(self) -> int:
        """Jobs to hold beyond the engine's: only short ones, which another worker could hardly start sooner."""
        return PREFETCH if self._last_run_s < PREFETCH_BELOW_S else 0

    async def _sleep(self, timeout_s: float | None) -> None:
        """Until a job ends, the engine's state changes, a drain begins, or the time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def _start(self, jobs: asyncio.TaskGroup, delivery: Delivery) -> None:
        lease = Lease(delivery, self._around.lease_s, self._around.clock)
        job = JobRun(delivery, lease, self._around, moved=self._job_moved)
        sequence = delivery.stream_sequence
        self._arrived += 1
        task = jobs.create_task(self._run(job, self._by_sequence.get(sequence)))
        self._jobs[task] = job
        if self._draining:
            job.stop(Stop.SHUTDOWN)
        self._by_sequence[sequence] = task
        task.add_done_callback(lambda done: self._release(done, sequence))
        self._changed()

    async def _run(self, job: JobRun, earlier: "asyncio.Task[None] | None") -> None:
        if earlier is not None:
            # Our own earlier delivery lost its lease and still runs: its result will end this one.
            async with job.lease.kept():
                await asyncio.wait([earlier])
        await job.run()

    def _job_moved(self) -> None:
        self._wake.set()
        self._changed()

    def _release(self, task: "asyncio.Task[None]", sequence: int) -> None:
        job = self._jobs.pop(task)
        self._empty_since = self._around.clock.now()
        self._last_run_s = self._last_run_s if job.run_s is None else job.run_s
        if self._by_sequence.get(sequence) is task:
            del self._by_sequence[sequence]
        self._job_moved()

    async def _on_cancel(self, tenant: str, job_id: str) -> None:
        for job in list(self._jobs.values()):
            if (
                job.job is not None
                and (job.job.tenant, job.job.id) == (tenant, job_id)
                and await self._has_ended(job.job)
            ):
                job.stop(Stop.CANCELED)

    async def _has_ended(self, job: Job) -> bool:
        """Whether a job has its result: one that is stopped and removed without would never have any."""
        try:
            return await has_ended(self._around.connection, job.tenant, job.model, job.id)
        except BrokerUnavailable:
            # The job is looked after at the next renewal of its lease.
            return False
