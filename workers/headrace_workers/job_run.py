"""One job, from its delivery to its settlement, as a list of named steps:

    decode -> admit -> fetch -> decode inputs -> join -> run -> store -> commit -> settle

A crash between any two steps leads to a redelivery, and a redelivery finds the committed result.
"""

import asyncio
import shutil
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import assert_never

import msgspec
import structlog

from headrace_contracts import codec
from headrace_contracts import event as events
from headrace_contracts.attempts import Attempts, billed, excused, failed, judged, suspected
from headrace_contracts.cost import Bill, usage_with
from headrace_contracts.errors import BrokerForbidden, BrokerUnavailable, ErrorCode, JobError, UndecodableMessage
from headrace_contracts.file import Artifact, File
from headrace_contracts.job import Job, decode_job
from headrace_contracts.names import artifact_prefix
from headrace_contracts.result import Result, Status, Timings, Usage
from headrace_contracts.tasks.registry import TaskInput, output_type
from headrace_storage.attempts import get_attempts
from headrace_storage.delivery import Delivery
from headrace_storage.events import last_event, publish_event
from headrace_storage.results import has_ended
from headrace_workers import admission
from headrace_workers.engine_host import EngineDied
from headrace_workers.engine_run import EngineRun, Stop
from headrace_workers.frames import Done, Run
from headrace_workers.job_files import JobFiles
from headrace_workers.job_inputs import JobInputs
from headrace_workers.job_trace import JobTrace
from headrace_workers.job_watch import JobWatch
from headrace_workers.lease import Lease
from headrace_workers.outcome import (
    CountFailure,
    CountSuspicion,
    EndAs,
    Forget,
    GiveBack,
    Interrupted,
    JobEnded,
    after_failure,
    failure_of,
    outcome_of,
    retry_delay_s,
    used_up,
)
from headrace_workers.output_check import check_output
from headrace_workers.settlement import Settlement
from headrace_workers.surroundings import Surroundings

# Stands in an engine's input for a file that lies in its folder by now.
_FETCHED = File(blob="fetched", sha256="", size_bytes=0)

# Share of a lease that is left to a worker to say that it was cut off, before its silence ends a job as poisoned.
LAST_WORD_SHARE = 0.5


class JobRun:
    """What is known of one job while this worker has it."""

    def __init__(
        self, delivery: Delivery, lease: Lease, around: Surroundings, moved: Callable[[], None] = lambda: None
    ) -> None:
        """`moved` is called when the engine takes the job, and when it is done with it and could take another."""
        self._moved = moved
        self.delivery = delivery
        self.lease = lease
        self.job: Job | None = None
        """What was asked; None until it is decoded."""
        self.started_at: datetime | None = None
        """When the engine took it."""
        self.run_s: float | None = None
        """Seconds in the engine; None until it is done."""
        self._around = around
        self._taken_at = around.clock.now()
        self._stop: Stop | None = None
        self._engine_run: EngineRun | None = None
        self._inputs = JobInputs(around, self._check_stop)
        self._attempts = Attempts()
        self._bill: Bill | None = None
        """What this run took of the worker; None if no engine began it."""
        self._timings = Timings()
        self._trace: JobTrace
        self._settlement = Settlement(around, delivery, lease)
        self._log = structlog.get_logger().bind(model=around.spec.name, sequence=delivery.stream_sequence)

    @property
    def _run_id(self) -> str:
        """Names this delivery on this worker; a job id does not: two tenants may use the same one."""
        return f"{self.delivery.stream_sequence}-{self.delivery.num_delivered}"

    @property
    def in_engine(self) -> bool:
        """Whether the engine runs it now."""
        return self.started_at is not None and self.run_s is None

    def stop(self, why: Stop) -> None:
        """Stop as soon as possible: the job was canceled, or the worker is stopping."""
        self._stop = self._stop or why
        if self._engine_run is not None:
            self._engine_run.stop(why)
        self._inputs.stop()

    async def run(self) -> None:
        """All steps. Returns when the job is settled, or when somebody else has to settle it."""
        async with self.lease.kept():
            try:
                job = self.job = self._decode()
            except UndecodableMessage as error:
                await self._settlement.reject(error)
                return
            self._trace = JobTrace(self._around, job, self.delivery, self._taken_at)
            self._say_with(job_id=job.id, tenant=job.tenant, worker=self._around.worker_id, **self._trace.label)
            scratch = self._around.scratch / self._run_id
            scratch.mkdir()
            watch = JobWatch(
                self._around, job, self.lease, self.delivery.num_delivered, lambda: self.stop(Stop.CANCELED)
            )
            try:
                async with watch.kept():
                    await self._attempt(job, scratch)
            except Exception as error:  # noqa: BLE001 - the job boundary: everything becomes an outcome
                await self._conclude(job, error)
            finally:
                self._around.company.leave(self)
                self._trace.end()
                await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    def _say_with(self, **fields: object) -> None:
        """Have every line from here on say these."""
        self._log = self._log.bind(**fields)
        self._settlement.say_with(**fields)

    async def _attempt(self, job: Job, scratch: Path) -> None:
        task_input = await self._admit(job)
        self._say_with(attempt=self._attempt_number)
        self._check_stop()
        if self.delivery.num_delivered > 1 or admission.files_of(task_input):
            # Others are in the engine at once, and a line takes a no-op job a hundredth of its time.
            self._log.info("job taken", lane=job.lane, delivery=self.delivery.num_delivered)
        files = JobFiles(self._around, scratch, lambda: self._stop is not None)
        inputs = await self._fetch(task_input, files)
        await self._join(job)
        self._check_stop()
        done = await self._run(job, task_input, inputs, scratch)
        check_output(done, scratch)
        with self._trace.phase("store"):
            artifacts = await self._store(job, done, files)
        await self._commit(job, self._result(job, done, artifacts))

    async def _commit(self, job: Job, result: Result) -> None:
        with self._trace.phase("commit"):
            ended = await self._settlement.end(job, result, self._trace.context)
        if ended is not None:
            self._trace.becomes(ended.status, ended.error.code if ended.error is not None else "")

    def _decode(self) -> Job:
        d = self.delivery
        return decode_job(d.subject, d.headers, d.data, d.stream_sequence, d.stored_at)

    async def _admit(self, job: Job) -> TaskInput:
        """Refuse a job that has ended, waited too long, used up its attempts or has a wrong input."""
        around = self._around
        await self._check_not_ended(job)
        admission.check_waiting_time(job, around.spec, around.clock.now())
        if self.delivery.num_delivered > 1:
            self._attempts = await self._recall_attempts(job)
            if used_up(self._attempts, around.spec.retry.max_attempts):
                # The worker that had it last may have been cut off, not dead, and about to say so.
                await asyncio.sleep(LAST_WORD_SHARE * around.lease_s)
                self._attempts = await self._recall_attempts(job)
            ended = used_up(self._attempts, around.spec.retry.max_attempts)
            if ended is not None:
                await self._end_as(job, ended)
                raise JobEnded("its attempts are used up")
        return admission.read_input(job, around.spec)

    async def _recall_attempts(self, job: Job) -> Attempts:
        """The record, with a verdict on every earlier delivery: a worker that began one and is silent has died."""
        connection, delivered = self._around.connection, self.delivery.num_delivered
        attempts = await get_attempts(connection, job.tenant, job.model, job.id)
        if not attempts.unexplained(delivered):
            return attempts
        newest = await last_event(connection, job.tenant, job.id, "started")
        started = None if newest is None else newest.event
        began, worker = (started.delivery, started.worker) if isinstance(started, events.Started) else (None, "")
        return await self._settlement.record(job, lambda known: judged(known, delivered, began, worker))

    async def _join(self, job: Job) -> None:
        """Wait for the company this job may have; it may have waited too long by then."""
        await self._around.company.join(self, self._attempts.must_run_alone)
        admission.check_waiting_time(job, self._around.spec, self._around.clock.now())

    async def _check_not_ended(self, job: Job) -> None:
        if await has_ended(self._around.connection, job.tenant, job.model, job.id):
            raise JobEnded("it has a result already")

    async def _fetch(self, task_input: TaskInput, files: JobFiles) -> dict[str, str]:
        with self._trace.phase("fetch"):
            return await self._inputs.ready(task_input, files)

    async def _run(self, job: Job, task_input: TaskInput, files: dict[str, str], out_dir: Path) -> Done:
        spec = self._around.spec
        without_files = msgspec.structs.replace(task_input, **dict.fromkeys(files, _FETCHED)) if files else task_input
        run = Run(
            self._run_id, self._attempt_number, msgspec.Raw(msgspec.msgpack.encode(without_files)), files, str(out_dir)
        )
        limit_s = min(job.body.timeout_s or spec.timeouts.run_s, spec.timeouts.run_s)
        self._engine_run = EngineRun(
            self._around.host,
            run,
            job.id,
            limit_s,
            self._around.clock,
            lambda: self._started(job),
            lambda e: self._emit(job, e),
        )
        done: Done | None = None
        try:
            done = await self._engine_run.result()
        finally:
            book, delivery = self._around.book, self.delivery.num_delivered
            self._bill = book.charge(job.tenant, self._run_id, delivery, succeeded=done is not None)
            self._trace.ran(succeeded=done is not None)
        self._engine_run = None
        self.run_s = done.run_s
        self._moved()
        return done

    async def _store(self, job: Job, done: Done, files: JobFiles) -> tuple[Artifact, ...]:
        """Store what the engine made, under a prefix of this attempt alone."""
        began = self._around.clock.monotonic()
        nonce = f"{self.delivery.num_delivered}-{self._around.rng.getrandbits(48):012x}"
        artifacts = await files.store(done.files, artifact_prefix(job.tenant, job.model, job.id, nonce))
        self._timings = msgspec.structs.replace(
            self._timings, run_s=done.run_s, store_s=self._around.clock.monotonic() - began
        )
        if artifacts:
            size_bytes = sum(artifact.size_bytes for artifact in artifacts)
            self._log.info("artifacts stored", count=len(artifacts), size_bytes=size_bytes)
        return artifacts

    async def _conclude(self, job: Job, error: Exception) -> None:
        """Settle an attempt that did not succeed. What became of it is recorded before the broker is answered."""
        if not isinstance(error, (JobEnded, Interrupted)):
            code = {"code": error.code} if isinstance(error, JobError) else {}
            self._log.warning("attempt ended", error=type(error).__name__, at=_raised_at(error), **code)
        if isinstance(error, BrokerForbidden):
            # It will not pass by itself.
            self._log.error("this role may not do what a worker does", action=error.action, subject=error.subject)
        settlement, delivery = self._settlement, self.delivery.num_delivered
        outcome = outcome_of(error, self._around.spec.retry)
        match outcome:
            case EndAs():
                await self._end_as(job, outcome)
            case Forget():
                if self._stop is Stop.CANCELED:
                    self._trace.becomes(Status.CANCELED, ErrorCode.CANCELED)
                    self._around.metrics.canceled(job.model, job.lane)
                await settlement.forget()
            case GiveBack():
                self._trace.becomes("given_back")
                self._log.info("job given back", reason=type(error).__name__, delay_s=outcome.delay_s)
                await self._record(job, lambda known: excused(known, delivery))
                await settlement.give_back(outcome.delay_s)
            case CountSuspicion():
                delay_s = retry_delay_s(1, self._around.spec.retry, self._around.rng)
                await self._record(job, lambda known: suspected(known, delivery))
                await self._try_again(job, outcome.error.code, outcome.message, delay_s)
            case CountFailure():
                await self._count_failure(job, outcome.error)
            case _:
                assert_never(outcome)

    async def _record(self, job: Job, change: Callable[[Attempts], Attempts]) -> Attempts:
        """Write down how this delivery ended, and what it took: its cost goes into the result of a later one."""
        return await self._settlement.record(job, lambda known: billed(change(known), self._bill))

    async def _count_failure(self, job: Job, error: JobError) -> None:
        around = self._around
        failure = failure_of(error, around.worker_id, self.delivery.num_delivered)
        record = await self._record(job, lambda known: failed(known, failure))
        decided = after_failure(record, error, around.spec.retry, around.rng)
        if isinstance(decided, EndAs):
            lines = error.last_lines if isinstance(error, EngineDied) else ()
            await self._end_as(job, decided, lines)
        else:
            await self._try_again(job, error.code, error.message, decided.delay_s)

    async def _try_again(self, job: Job, code: ErrorCode, message: str, delay_s: float) -> None:
        now = self._around.clock.now()
        self._around.metrics.retried(job.model, code)
        self._trace.becomes("retrying", code)
        self._log.info("job tries again", code=code, delay_s=round(delay_s, 3))
        await self._emit(job, events.Retrying(job.id, now, self._attempt_number, code, message, delay_s))
        await self._settlement.give_back(delay_s)

    async def _end_as(self, job: Job, outcome: EndAs, last_lines: tuple[str, ...] = ()) -> None:
        result = self._base_result(job, outcome.status, msgspec.Raw(codec.encode(None, job.encoding)))
        if outcome.dead_reason is not None:
            await self._settlement.bury(job, outcome.dead_reason, last_lines)
        await self._commit(job, msgspec.structs.replace(result, error=outcome.error))

    def _result(self, job: Job, done: Done, artifacts: tuple[Artifact, ...]) -> Result:
        spec = self._around.spec
        output = msgspec.msgpack.decode(done.output, type=output_type(spec.task))
        return msgspec.structs.replace(
            self._base_result(job, Status.SUCCEEDED, msgspec.Raw(codec.encode(output, job.encoding))),
            artifacts=artifacts,
            usage=self._usage(done.usage),
        )

    def _base_result(self, job: Job, status: Status, output: msgspec.Raw) -> Result:
        return Result(
            id=job.id,
            model=job.model,
            version=self._around.spec.version,
            status=status,
            output=output,
            attempts=self._attempts.spent if self.started_at is None else self._attempt_number,
            created_at=job.created_at,
            started_at=self.started_at,
            completed_at=self._around.clock.now(),
            worker=self._around.worker_id,
            timings=self._waiting_times(job),
            usage=self._usage(Usage()),
            metadata=job.body.metadata,
        )

    def _usage(self, made: Usage) -> Usage:
        """What the model made, and what all runs of the job took that are known: earlier ones are in the record."""
        earlier = [bill for bill in self._attempts.bills if bill.delivery != self.delivery.num_delivered]
        return usage_with(made, (*earlier, *((self._bill,) if self._bill else ())))

    def _waiting_times(self, job: Job) -> Timings:
        """Split the wait before this delivery into waiting for the model to load and waiting for a turn."""
        host = self._around.host
        waited_s = max(0.0, (self._taken_at - job.created_at).total_seconds())
        loading_s = (host.ready_at - max(host.loading_since, job.created_at)).total_seconds()
        load_s = min(waited_s, max(0.0, loading_s))
        return msgspec.structs.replace(
            self._timings, queued_s=waited_s - load_s, load_s=load_s, fetch_s=self._inputs.fetch_s
        )

    @property
    def _attempt_number(self) -> int:
        return self._attempts.spent + 1

    async def _started(self, job: Job) -> None:
        now = self._around.clock.now()
        self.started_at = now
        self._moved()
        self._trace.started(now, self._attempt_number)
        self._log.info("job started", lane=job.lane, delivery=self.delivery.num_delivered)
        await self._emit(
            job,
            events.Started(job.id, now, self._attempt_number, self._around.worker_id, self.delivery.num_delivered),
        )

    async def _emit(self, job: Job, event: events.AnyEvent) -> None:
        try:
            await publish_event(self._around.connection, job.tenant, job.model, event, job.encoding)
        except BrokerUnavailable:
            self._log.info("event lost", event_kind=events.event_name(event))

    def _check_stop(self) -> None:
        if self._stop is Stop.CANCELED:
            raise JobEnded("canceled")
        if self._stop is Stop.SHUTDOWN:
            raise Interrupted("the worker is stopping")


def _raised_at(error: Exception) -> str:
    """File and line that raised, without the message: it may quote the prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
