"""The last steps of a job: commit the result, then answer the broker. Never the other way round."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog

from headrace_contracts import codec
from headrace_contracts.attempts import Attempts
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import (
    BlobError,
    BrokerUnavailable,
    ErrorCode,
    Fault,
    QueueFull,
    UndecodableMessage,
)
from headrace_contracts.job import Job, job_id_to_answer_under
from headrace_contracts.names import NAMELESS, Lane, is_token
from headrace_contracts.result import Result, ResultError, Status
from headrace_contracts.trace_context import TraceContext
from headrace_storage.attempts import change_attempts, forget_attempts
from headrace_storage.dead import bury
from headrace_storage.delivery import Delivery
from headrace_storage.results import Committed, commit_result
from headrace_workers.lease import Lease
from headrace_workers.surroundings import Surroundings

# Between tries to commit while the broker does not take results. The work is done: nothing is gained by giving up.
COMMIT_PAUSE_S = 1.0


class Settlement:
    """Ends one delivery."""

    def __init__(self, around: Surroundings, delivery: Delivery, lease: Lease) -> None:
        self._around = around
        self._delivery = delivery
        self._lease = lease
        self._log = structlog.get_logger().bind(model=around.spec.name, sequence=delivery.stream_sequence)

    def say_with(self, **fields: object) -> None:
        """Have every line from here on say these."""
        self._log = self._log.bind(**fields)

    async def end(self, job: Job, result: Result, trace: TraceContext | None = None) -> Result | None:
        """Make `result` the end of the job unless it has one, then remove the job from the queue.

        Returns:
            The result that the job has now: ours, or that of whoever was first; None if that is not readable.
        """
        committed = await self._commit(job.tenant, job.lane, result, job.encoding, trace)
        won = committed is not None and committed.won
        if not won:
            await self._remove_artifacts(result)
        code = {"code": result.error.code} if result.error is not None else {}
        self._log.info("job ended", status=result.status, won=won, attempts=result.attempts, **code)
        await self._lease.ack()
        if self._delivery.num_delivered > 1:
            await self._forget(job)
        return None if committed is None else committed.result

    async def record(self, job: Job, change: Callable[[Attempts], Attempts]) -> Attempts:
        """Write down what became of this delivery, before it is answered; the record as it is then.

        A delivery that nothing explains counts as a crash, so an outage of the broker is waited for, whatever becomes
        of the lease meanwhile: each entry names its delivery, and may be written late and twice.
        """
        while True:
            try:
                return await change_attempts(self._around.connection, job.tenant, job.model, job.id, change)
            except BrokerUnavailable as error:
                self._log.warning("attempt not recorded yet", error=str(error))
                await asyncio.sleep(COMMIT_PAUSE_S)

    async def forget(self) -> None:
        """Remove a job that has ended from the queue."""
        await self._lease.ack()

    async def give_back(self, delay_s: float) -> None:
        """Let the job be delivered again after `delay_s`; if that cannot be said, when its lease has run out."""
        await self._lease.nak(delay_s)

    async def bury(self, job: Job, reason: str, last_lines: Sequence[str] = ()) -> None:
        """Keep the original message for the operator, with the last lines of the engine that died of it."""
        await self._bury(job.tenant, job.model, job.id, reason, last_lines)

    async def reject(self, error: UndecodableMessage) -> None:
        """End a message that is no job: a failed result where an id can be known, the bytes in DEAD, then remove it."""
        around, delivery = self._around, self._delivery
        named = delivery.subject.split(".")[1]
        tenant = named if is_token(named) else NAMELESS
        job_id = job_id_to_answer_under(delivery.headers, delivery.stream_sequence)
        encoding = codec.encoding_to_answer_in(delivery.headers, delivery.data)
        self.say_with(job_id=job_id, tenant=tenant, worker=around.worker_id)
        await self._bury(tenant, around.spec.name, job_id, str(error))
        result = Result(
            id=job_id,
            model=around.spec.name,
            version=around.spec.version,
            status=Status.FAILED,
            output=msgspec.Raw(codec.encode(None, encoding)),
            attempts=0,
            created_at=delivery.stored_at,
            completed_at=around.clock.now(),
            worker=around.worker_id,
            error=ResultError(ErrorCode.UNDECODABLE, str(error), Fault.INPUT, retryable=False),
        )
        await self._commit(tenant, delivery.lane, result, encoding)
        self._log.info("message rejected")
        await self._lease.term(error.reason)

    async def _commit(
        self, tenant: str, lane: Lane, result: Result, encoding: Encoding, trace: TraceContext | None = None
    ) -> Committed | None:
        """Commit until the broker took the result or showed another; None if what it shows is no result."""
        while True:
            try:
                committed = await commit_result(self._around.connection, tenant, result, encoding, trace)
            except (BrokerUnavailable, QueueFull) as error:
                self._log.warning("result not stored yet", error=str(error))
                await asyncio.sleep(COMMIT_PAUSE_S)
            except UndecodableMessage:
                # Somebody published something else on the subject: that is how this job ended.
                self._log.warning("the job's subject holds no result")
                return None
            else:
                if committed.won:
                    self._around.metrics.ended(lane, result, self._around.clock.now())
                elif committed.result.status is Status.CANCELED:
                    self._around.metrics.canceled(result.model, lane)
                return committed

    async def _bury(self, tenant: str, model: str, job_id: str, reason: str, last_lines: Sequence[str] = ()) -> None:
        delivery = self._delivery
        while True:
            try:
                await bury(
                    self._around.connection,
                    tenant,
                    model,
                    job_id,
                    original_subject=delivery.subject,
                    headers=delivery.headers,
                    data=delivery.data,
                    reason=reason,
                    sequence=delivery.stream_sequence,
                    last_lines=last_lines,
                )
            except (BrokerUnavailable, QueueFull) as error:
                self._log.warning("dead letter not stored yet", error=str(error))
                await asyncio.sleep(COMMIT_PAUSE_S)
            else:
                return

    async def _remove_artifacts(self, result: Result) -> None:
        """The files of an attempt that lost; nothing refers to them."""
        for artifact in result.artifacts:
            try:
                await self._around.blobs.delete(artifact.blob)
            except BlobError as error:
                self._log.warning("artifact of a lost attempt stays", key=artifact.blob, error=error.reason)

    async def _forget(self, job: Job) -> None:
        try:
            await forget_attempts(self._around.connection, job.tenant, job.model, job.id)
        except BrokerUnavailable:
            self._log.info("record of attempts stays until it expires")
