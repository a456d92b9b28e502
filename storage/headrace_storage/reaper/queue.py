"""Rules for jobs that no worker has ever had: end those that waited too long, remove those that have ended.

A job was *never delivered* if its sequence is above the consumer's `delivered.stream_seq`. A job that was delivered is
its worker's, or comes back to another one; it is not touched.

An expiry cannot race a run: the consumer is asked *after* the deadline (and a margin for clocks that differ), so a
worker that is given the job later finds it too old as well. When a consumer's word cannot be trusted is in
`possession`.
"""

import contextlib
from datetime import datetime

from headrace_contracts.errors import UndecodableMessage
from headrace_contracts.job import MAX_SECONDS, job_id_to_answer_under
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import Lane, Stream, consumer_filter, consumer_name, is_token, results_subject
from headrace_storage.jobs import remove_job
from headrace_storage.reading import Stored, last_of, next_batch
from headrace_storage.reaper.answers import expiry, ttl_of
from headrace_storage.reaper.duty import Act, Duty, Rule
from headrace_storage.reaper.possession import Holders, ask_holders, free_from
from headrace_storage.reaper.survey import ConsumerState, Survey, consumers
from headrace_storage.reaper.waiting import Waiting, WaitingJobs
from headrace_storage.results import commit_result

# Clocks of machines differ. Larger than they do; a job ends this much later than it could.
CLOCK_MARGIN_S = 2.0
# When a job that was due and may run is looked at again.
LOOK_AGAIN_S = 30.0
# Jobs ended in one look: each takes three requests, and the other rules wait meanwhile.
DUE_AT_ONCE = 2_000
# How often all waiting jobs are held against the results, one request for 1,000. New ones are at once.
ENDED_EVERY_S = 30.0


class QueueRules:
    """Keeps what is known of the queue from one look to the next."""

    def __init__(self, duty: Duty, waiting: WaitingJobs | None = None) -> None:
        self._duty = duty
        self._waiting = WaitingJobs() if waiting is None else waiting
        self._last_sequence = 0
        self._created: dict[str, datetime] = {}
        """When each consumer was made: one that was made anew has delivered nothing yet."""
        self._compared_at: float | None = None
        self._compared_to = -1
        """Last sequence of RESULTS when all jobs were compared with it."""

    async def read(self, survey: Survey) -> list[Waiting]:
        """Get to know the jobs that came since the last look; returns them."""
        if survey.last_sequence < self._last_sequence:  # another stream than before: its sequences say nothing here
            self._waiting = WaitingJobs()
        self._last_sequence = survey.last_sequence
        for name, state in survey.consumers.items():
            if self._created.setdefault(name, state.created_at) != state.created_at:
                self._created[name] = state.created_at
                self._waiting.start_over(name)
        self._waiting.keep_undelivered({name: state.delivered for name, state in survey.consumers.items()})
        new: list[Waiting] = []
        for model, spec in survey.models.items():
            for lane in Lane:
                consumer = survey.consumers.get(consumer_name(model, lane))
                if consumer is not None:
                    new += await self._read(consumer, consumer_filter(model, lane), model, spec, survey.last_sequence)
        return new

    async def expire(self, survey: Survey) -> None:
        """End the jobs that are due.

        Raises:
            QueueFull: RESULTS takes nothing; the jobs stay.
            BrokerUnavailable: no answer.
        """
        duty = self._duty
        now_s = duty.clock.now().timestamp()
        due = self._waiting.due(now_s, DUE_AT_ONCE)
        if not due:
            return
        done: set[int] = set()
        later: set[int] = set()
        try:
            # Asked now, not taken from the survey: see the module's docstring.
            fresh = await consumers(duty.connection)
            holders = await ask_holders(duty.connection)
            ready = []
            for job in due:
                consumer = fresh.get(job.consumer)
                if consumer is None or job.sequence <= consumer.delivered:
                    done.add(job.sequence)  # not ours to end
                elif (job.model, job.job_id) in holders.running:
                    later.add(job.sequence)
                else:
                    ready.append(job)

            async def end(job: Waiting) -> None:
                ended = await self._end(job, survey.models.get(job.model), fresh[job.consumer], holders, now_s)
                (done if ended else later).add(job.sequence)

            await duty.each(Rule.EXPIRED, ready, end)
        finally:
            for job in due:
                if job.sequence in later:
                    self._waiting.add(_due_at(job, now_s + LOOK_AGAIN_S))
                elif job.sequence not in done:
                    self._waiting.add(job)

    async def remove_ended(self, new: list[Waiting]) -> None:
        """Remove jobs that have a result, as one that was canceled while it waited.

        Raises:
            BrokerUnavailable: no answer.
        """
        duty = self._duty
        jobs = new
        now = duty.clock.monotonic()
        if len(self._waiting) > 0 and (self._compared_at is None or now - self._compared_at >= ENDED_EVERY_S):
            with duty.connection.errors():
                last = (await duty.connection.js.stream_info(Stream.RESULTS)).state.last_seq
            if last != self._compared_to:
                jobs = list(self._waiting)
            self._compared_at, self._compared_to = now, last
        of_subject = {results_subject(job.tenant, job.model, job.job_id): job for job in jobs}
        ended: list[Waiting] = []
        async for result in last_of(duty.connection, Stream.RESULTS, list(of_subject)):
            ended.append(of_subject[result.subject])

        async def remove(job: Waiting) -> None:
            await remove_job(duty.connection, job.sequence)
            duty.tell(Act(Rule.ENDED, results_subject(job.tenant, job.model, job.job_id), "had ended: job removed"))

        await duty.each(Rule.ENDED, ended, remove)
        if ended:
            self._waiting.remove({job.sequence for job in ended})

    async def _read(
        self, consumer: ConsumerState, subject: str, model: str, spec: ModelSpec | None, last_sequence: int
    ) -> list[Waiting]:
        # What has been delivered needs no reading, so a queue that workers keep up with costs nothing here.
        sequence = max(self._waiting.next_sequence(consumer.name), consumer.delivered + 1)
        new = []
        while consumer.pending and 0 < sequence <= last_sequence:
            batch = await next_batch(self._duty.connection, Stream.JOBS, subject, sequence)
            for message in batch.messages:
                if is_token(message.subject.split(".")[1]):  # else it is unroutable
                    job = waiting_job(message, consumer, model, spec)
                    self._waiting.add(job)
                    new.append(job)
            sequence = batch.next_sequence
            last_sequence = max([last_sequence, *(message.sequence for message in batch.messages)])
        self._waiting.read_up_to(consumer.name, last_sequence)
        return new

    async def _end(
        self, job: Waiting, spec: ModelSpec | None, consumer: ConsumerState, holders: Holders, now_s: float
    ) -> bool:
        """Whether the job is out of the queue."""
        duty = self._duty
        batch = await next_batch(
            duty.connection, Stream.JOBS, f"jobs.{job.tenant}.{job.model}.*", job.sequence, count=1
        )
        message = next((message for message in batch.messages if message.sequence == job.sequence), None)
        if message is None:
            return True
        if now_s < free_from(message.stored_at, job.model, consumer.created_at, holders, spec):
            return False
        duty.check()
        version, queue_s = ("", MAX_SECONDS) if spec is None else (spec.version, spec.timeouts.queue_s)
        result, encoding = expiry(message, job.model, version, queue_s, duty.clock.now())
        # Something that is no result on the subject ends the job too.
        with contextlib.suppress(UndecodableMessage):
            await commit_result(duty.connection, job.tenant, result, encoding)
        await remove_job(duty.connection, job.sequence)
        duty.tell(Act(Rule.EXPIRED, message.subject, f"job {job.job_id} expired"))
        return True


def waiting_job(message: Stored, consumer: ConsumerState, model: str, spec: ModelSpec | None) -> Waiting:
    """What to remember of a message. Pure."""
    queue_s = MAX_SECONDS if spec is None else spec.timeouts.queue_s
    return Waiting(
        deadline_s=message.stored_at.timestamp() + ttl_of(message, queue_s) + CLOCK_MARGIN_S,
        sequence=message.sequence,
        consumer=consumer.name,
        tenant=message.subject.split(".")[1],
        model=model,
        job_id=job_id_to_answer_under(message.headers, message.sequence),
    )


def _due_at(job: Waiting, deadline_s: float) -> Waiting:
    return Waiting(deadline_s, job.sequence, job.consumer, job.tenant, job.model, job.job_id)
