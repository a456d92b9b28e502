"""Rules for files: artifacts that no result names, and old inputs.

A file of a job that has no result is only removed when the job is not in the queue, *and then* still has no result.
In this order: a worker commits the result before the job leaves the queue, so whoever is committed in between is seen.
"""

from datetime import datetime, timedelta

from headrace_contracts.errors import BlobNotFound
from headrace_contracts.settings import ReaperSettings
from headrace_storage.blobs import JetStreamBlobs
from headrace_storage.blobs.port import BlobInfo, BlobStore
from headrace_storage.reaper.duty import Act, Duty, Rule
from headrace_storage.reaper.evidence import named_by_results, queued_of, without_result
from headrace_storage.reaper.files import Kind, is_old_enough, kind_of, origin_of
from headrace_storage.topology import RESULTS_KEPT_S

# Files looked at together: one pass over the tenants' jobs each, and this many keys in memory.
FILES_AT_ONCE = 5_000
# Files known to be named, at 60 bytes each; beyond it they are looked at again.
NAMED_LIMIT = 200_000


class FileRules:
    """Removes artifacts that no result names, and old inputs that no job names.

    Remembers which files a result was seen to name: nothing changes a result, so they need no second look while it
    lasts.
    """

    def __init__(self, duty: Duty, blobs: BlobStore, settings: ReaperSettings) -> None:
        self._duty = duty
        self._blobs = blobs
        self._settings = settings
        self._named: set[int] = set()
        """Hashes of keys: a collision keeps a file until its result is gone."""

    async def sweep(self) -> None:
        """Go through all files once.

        Raises:
            BlobUnavailable: the store does not answer.
            BrokerUnavailable: no answer.
        """
        now = self._duty.clock.now()
        page: list[BlobInfo] = []
        async for blob in self._blobs.list(""):
            if is_old_enough(blob, self._settings, now) and not self._is_kept(blob, now):
                page.append(blob)
            if len(page) == FILES_AT_ONCE:
                await self._sweep(page)
                page = []
        await self._sweep(page)
        if isinstance(self._blobs, JetStreamBlobs):
            # The chunks of an upload that was cut off are no blob: the listing has not shown them.
            self._duty.check()
            if count := await self._blobs.discard_unfinished(self._settings.orphan_grace_s):
                self._duty.tell(Act(Rule.ARTIFACTS, "unfinished uploads", f"{count} removed"))

    def _is_kept(self, blob: BlobInfo, now: datetime) -> bool:
        """Whether a result names the file and is there still: it was stored after the file."""
        return hash(blob.key) in self._named and now - blob.stored_at < timedelta(seconds=RESULTS_KEPT_S)

    def _remember_named(self, blob: BlobInfo) -> None:
        if len(self._named) >= NAMED_LIMIT:
            self._named.clear()
        self._named.add(hash(blob.key))

    async def _sweep(self, page: list[BlobInfo]) -> None:
        duty = self._duty
        unresolved: list[BlobInfo] = []
        orphans: list[BlobInfo] = []
        inputs = [blob for blob in page if kind_of(blob.key) is Kind.INPUT]
        artifacts = [blob for blob in page if kind_of(blob.key) is Kind.ARTIFACT]
        named = await named_by_results(duty, {origin_of(blob.key) for blob in artifacts})
        for blob in artifacts:
            job = origin_of(blob.key)
            if job not in named:
                unresolved.append(blob)
            elif (keys := named[job]) is not None and blob.key not in keys:
                orphans.append(blob)
            elif keys is not None:
                self._remember_named(blob)
        doomed = [*unresolved, *orphans, *inputs]
        if not doomed:
            return
        queued = await queued_of(
            duty,
            {blob.key.partition("/")[0] for blob in doomed},
            {origin_of(blob.key) for blob in unresolved},
            {blob.key for blob in doomed},
        )
        lost = [blob for blob in unresolved if origin_of(blob.key) not in queued.jobs]
        still_open = await without_result(duty, {origin_of(blob.key) for blob in lost})
        lost = [blob for blob in lost if origin_of(blob.key) in still_open]
        doomed = [blob for blob in (*lost, *orphans, *inputs) if blob.key not in queued.keys]
        await duty.each(Rule.ARTIFACTS, doomed, self._remove)

    async def _remove(self, blob: BlobInfo) -> None:
        duty = self._duty
        # A listing is old when its end is reached: the file may have been uploaded anew meanwhile.
        try:
            if not is_old_enough(await self._blobs.stat(blob.key), self._settings, duty.clock.now()):
                return
        except BlobNotFound:
            return
        duty.check()
        await self._blobs.delete(blob.key)
        rule = Rule.INPUTS if kind_of(blob.key) is Kind.INPUT else Rule.ARTIFACTS
        duty.tell(Act(rule, blob.key, f"file of {blob.size_bytes} bytes removed"))
