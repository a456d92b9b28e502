"""Rules for what lies about: files that no result names, old uploads, records of attempts.

A file of a job that has no result is only removed when the job is not in the queue, *and then* still has no result.
In this order: a worker commits the result before the job leaves the queue, so whoever is committed in between is seen.
"""

from collections.abc import Collection

import msgspec
import nats.js.errors

from headrace_contracts.errors import BlobNotFound
from headrace_contracts.job import job_id_to_answer_under
from headrace_contracts.names import Bucket, Stream, is_token
from headrace_contracts.settings import ReaperSettings
from headrace_storage.blobs.port import BlobInfo, BlobStore
from headrace_storage.reading import last_of, messages_from
from headrace_storage.reaper.duty import Act, Duty, Rule
from headrace_storage.reaper.files import (
    Kind,
    Origin,
    files_named_by,
    files_named_in,
    is_old_enough,
    kind_of,
    origin_of,
)

# Files looked at together: one pass over the tenants' jobs each, and this many keys in memory.
FILES_AT_ONCE = 5_000


class _Queued(msgspec.Struct, frozen=True):
    """What jobs in the queue, waiting or running, hold on to."""

    jobs: set[Origin]
    keys: set[str]


async def sweep_files(duty: Duty, blobs: BlobStore, settings: ReaperSettings) -> None:
    """Remove artifacts that no result names, and old inputs that no job names.

    Raises:
        BlobUnavailable: the store does not answer.
        BrokerUnavailable: no answer.
    """
    now = duty.clock.now()
    page: list[BlobInfo] = []
    async for blob in blobs.list(""):
        if is_old_enough(blob, settings, now):
            page.append(blob)
        if len(page) == FILES_AT_ONCE:
            await _sweep_page(duty, blobs, settings, page)
            page = []
    await _sweep_page(duty, blobs, settings, page)


async def sweep_attempts(duty: Duty) -> None:
    """Remove records of attempts of jobs that ended, or are nowhere any more; also the markers of removed ones."""
    prefix = f"$KV.{Bucket.ATTEMPTS}."
    with duty.connection.errors():
        try:
            info = await duty.connection.js.stream_info(f"KV_{Bucket.ATTEMPTS}", subjects_filter=f"{prefix}>")
        except nats.js.errors.NotFoundError:
            return
    keys = [subject.removeprefix(prefix) for subject in info.state.subjects or {}]
    subjects = {tuple(key.split(".")): key for key in keys}
    of_job = {
        Origin(*parts): key for parts, key in subjects.items() if len(parts) == 3 and all(is_token(p) for p in parts)
    }
    ended = await _ended(duty, of_job)
    queued = await _queued(duty, {job.tenant for job in of_job if job not in ended}, set(of_job) - ended, set())
    stale = [key for job, key in of_job.items() if job in ended or job not in queued.jobs]

    async def purge(key: str) -> None:
        # Not the client's own purge, which leaves a marker in the place of each.
        request = msgspec.json.encode({"filter": f"{prefix}{key}"})
        await duty.connection.api(f"STREAM.PURGE.KV_{Bucket.ATTEMPTS}", request)
        duty.tell(Act(Rule.ATTEMPTS, key, "record of attempts removed"))

    await duty.each(stale, purge)


async def _sweep_page(duty: Duty, blobs: BlobStore, settings: ReaperSettings, page: list[BlobInfo]) -> None:
    unresolved: list[BlobInfo] = []
    orphans: list[BlobInfo] = []
    inputs = [blob for blob in page if kind_of(blob.key) is Kind.INPUT]
    artifacts = [blob for blob in page if kind_of(blob.key) is Kind.ARTIFACT]
    named = await _named_by_results(duty, {origin_of(blob.key) for blob in artifacts})
    for blob in artifacts:
        job = origin_of(blob.key)
        if job not in named:
            unresolved.append(blob)
        elif (keys := named[job]) is not None and blob.key not in keys:
            orphans.append(blob)
    doomed = [*unresolved, *orphans, *inputs]
    if not doomed:
        return
    queued = await _queued(
        duty,
        {blob.key.partition("/")[0] for blob in doomed},
        {origin_of(blob.key) for blob in unresolved},
        {blob.key for blob in doomed},
    )
    lost = [blob for blob in unresolved if origin_of(blob.key) not in queued.jobs]
    ended_since = await _ended(duty, {origin_of(blob.key) for blob in lost})
    lost = [blob for blob in lost if origin_of(blob.key) not in ended_since]

    async def remove(blob: BlobInfo) -> None:
        await _remove(duty, blobs, settings, blob)

    await duty.each([blob for blob in (*lost, *orphans, *inputs) if blob.key not in queued.keys], remove)


async def _remove(duty: Duty, blobs: BlobStore, settings: ReaperSettings, blob: BlobInfo) -> None:
    # A listing is old when its end is reached: the file may have been uploaded anew meanwhile.
    try:
        if not is_old_enough(await blobs.stat(blob.key), settings, duty.clock.now()):
            return
    except BlobNotFound:
        return
    duty.check()
    await blobs.delete(blob.key)
    rule = Rule.INPUTS if kind_of(blob.key) is Kind.INPUT else Rule.ARTIFACTS
    duty.tell(Act(rule, blob.key, f"file of {blob.size_bytes} bytes removed"))


async def _named_by_results(duty: Duty, jobs: Collection[Origin]) -> dict[Origin, set[str] | None]:
    """For each job that has a result, the keys it names; None if that cannot be read."""
    of_subject = {job.results_subject: job for job in jobs}
    return {
        of_subject[result.subject]: files_named_by(result)
        async for result in last_of(duty.connection, Stream.RESULTS, sorted(of_subject))
    }


async def _ended(duty: Duty, jobs: Collection[Origin]) -> set[Origin]:
    """Those of the jobs that have a result, as the stream's leader knows it: a replica may lag behind."""
    ended: set[Origin] = set()

    async def look(job: Origin) -> None:
        with duty.connection.errors():
            try:
                await duty.connection.js.get_last_msg(Stream.RESULTS, job.results_subject)
            except nats.js.errors.NotFoundError:
                return
        ended.add(job)

    await duty.each(list(jobs), look)
    return ended


async def _queued(duty: Duty, tenants: Collection[str], jobs: set[Origin], keys: set[str]) -> _Queued:
    """Which of the jobs are in the queue, and which of the keys a job there names: one pass over the tenants' jobs."""
    found = _Queued(set(), set())
    for tenant in sorted(tenants):
        async for message in messages_from(duty.connection, Stream.JOBS, f"jobs.{tenant}.*.*"):
            origin = Origin(
                tenant, message.subject.split(".")[2], job_id_to_answer_under(message.headers, message.sequence)
            )
            if origin in jobs:
                found.jobs.add(origin)
            found.keys.update(key for key in files_named_in(message) if key in keys)
    return found
