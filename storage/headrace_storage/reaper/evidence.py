"""What the broker knows of jobs that files and records belong to: their results, and whether they are in the queue."""

from collections.abc import Collection

import msgspec
import nats.js.errors

from headrace_contracts.job import job_id_to_answer_under
from headrace_contracts.names import Stream
from headrace_storage.reading import last_of, messages_from
from headrace_storage.reaper.duty import Duty, Rule
from headrace_storage.reaper.files import Origin, files_named_by, files_named_in


class Queued(msgspec.Struct, frozen=True):
    """What jobs in the queue, waiting or running, hold on to."""

    jobs: set[Origin]
    keys: set[str]


async def named_by_results(duty: Duty, jobs: Collection[Origin]) -> dict[Origin, set[str] | None]:
    """For each job that has a result, the keys it names; None if that cannot be read."""
    of_subject = {job.results_subject: job for job in jobs}
    return {
        of_subject[result.subject]: files_named_by(result)
        async for result in last_of(duty.connection, Stream.RESULTS, sorted(of_subject))
    }


async def without_result(duty: Duty, jobs: Collection[Origin]) -> set[Origin]:
    """Those of the jobs that surely have none, as the stream's leader knows it: a replica may lag behind."""
    open_jobs: set[Origin] = set()

    async def look(job: Origin) -> None:
        with duty.connection.errors():
            try:
                await duty.connection.js.get_last_msg(Stream.RESULTS, job.results_subject)
            except nats.js.errors.NotFoundError:
                open_jobs.add(job)

    await duty.each(Rule.ARTIFACTS, list(jobs), look)
    return open_jobs


async def queued_of(duty: Duty, tenants: Collection[str], jobs: set[Origin], keys: set[str]) -> Queued:
    """Which of the jobs are in the queue, and which of the keys a job there names: one pass over the tenants' jobs."""
    found = Queued(set(), set())
    for tenant in sorted(tenants):
        async for message in messages_from(duty.connection, Stream.JOBS, f"jobs.{tenant}.*.*"):
            origin = Origin(
                tenant, message.subject.split(".")[2], job_id_to_answer_under(message.headers, message.sequence)
            )
            if origin in jobs:
                found.jobs.add(origin)
            found.keys.update(key for key in files_named_in(message) if key in keys)
    return found
