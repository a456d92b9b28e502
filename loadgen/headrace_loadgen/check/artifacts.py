"""Invariants of artifacts: what a result promises is in the store, is right, and nobody else touches it."""

import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256

from headrace_contracts.result import Status
from headrace_loadgen.check.history import History
from headrace_loadgen.check.verdict import Finding, Violation

# S3 tells whole seconds, and rounds them as it likes.
_CLOCK_SLACK = timedelta(seconds=2)
_PIECE_BYTES = 1 << 20


def whole(history: History) -> Iterator[Finding]:
    """A job that succeeded has all its artifacts in the store, with the bytes that follow from its input."""
    stored = {blob.key: blob for blob in history.evidence.final.blobs}
    for job in history.jobs.values():
        result = job.result
        if result is None or job.asked is None:
            continue
        if result.status is not Status.SUCCEEDED:
            yield Violation(job.job_id, f"{result.status} with artifacts") if result.artifacts else None
            continue
        wanted = 1 if job.asked.output_bytes else 0
        if len(result.artifacts) != wanted:
            yield Violation(job.job_id, f"{len(result.artifacts)} artifacts, not {wanted}")
        for artifact in result.artifacts:
            blob = stored.get(artifact.blob)
            expected = expected_sha256(job.asked.seed, job.asked.output_bytes)
            if blob is None:
                yield Violation(job.job_id, f"{artifact.blob} is not in the store")
            elif (blob.size_bytes, blob.sha256) != (artifact.size_bytes, artifact.sha256):
                yield Violation(job.job_id, f"{artifact.blob} has other bytes than the result says")
            elif blob.sha256 != expected:
                yield Violation(job.job_id, f"{artifact.blob} does not follow from the input")
            else:
                yield None


def one_winner(history: History) -> Iterator[Finding]:
    """A blob belongs to one attempt of one job, and nobody writes to it once a result names it."""
    stored = {blob.key: blob for blob in history.evidence.final.blobs}
    owners = Counter(artifact.blob for job in history.jobs.values() if job.result for artifact in job.result.artifacts)
    for job in history.jobs.values():
        if job.result is None:
            continue
        for artifact in job.result.artifacts:
            blob = stored.get(artifact.blob)
            if job.job_id not in artifact.blob.split("/"):
                yield Violation(job.job_id, f"{artifact.blob} is another job's")
            elif owners[artifact.blob] > 1:
                yield Violation(job.job_id, f"{artifact.blob} is named by {owners[artifact.blob]} results")
            elif blob is not None and blob.stored_at > job.ends[0].message.stored_at + _CLOCK_SLACK:
                yield Violation(job.job_id, f"{artifact.blob} was written after its result")
            else:
                yield None


def orphans(history: History) -> int:
    """Blobs that no result names: allowed, and counted."""
    named = {artifact.blob for job in history.jobs.values() if job.result for artifact in job.result.artifacts}
    return sum(blob.key not in named for blob in history.evidence.final.blobs)


@lru_cache(maxsize=100_000)
def expected_sha256(seed: int, size_bytes: int) -> str:
    """Of the artifact of an input. Written once more here, so that a fault of the engine's own would be seen."""
    source, digest = random.Random(seed), sha256()  # noqa: S311 - not a secret
    for begin in range(0, size_bytes, _PIECE_BYTES):
        digest.update(source.randbytes(min(_PIECE_BYTES, size_bytes - begin)))
    return digest.hexdigest()
