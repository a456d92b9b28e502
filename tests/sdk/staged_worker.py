"""A worker whose every step is a test's word: what it publishes is real, what it computes is given."""

import asyncio
from datetime import UTC, datetime

import msgspec

import headrace
from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import ErrorCode, Fault
from headrace_contracts.event import AnyEvent, Chunk, Progress, Retrying, Started
from headrace_contracts.file import Artifact
from headrace_contracts.limits import Limits
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.names import artifact_prefix
from headrace_contracts.result import Result, ResultError, Status, Timings
from headrace_contracts.tasks.registry import Task
from headrace_storage.connection import Connection
from headrace_storage.events import publish_event
from headrace_storage.lookup import find_job
from headrace_storage.results import Committed, commit_result

DRAW = ModelSpec("draw", Task.TEXT_TO_IMAGE, EngineKind.DIFFUSERS, limits=Limits(max_prompt_chars=200, max_steps=50))
HEAR = ModelSpec("hear", Task.SPEECH_TO_TEXT, EngineKind.FASTER_WHISPER, limits=Limits(max_file_bytes=300_000))
WRITE = ModelSpec("write", Task.TEXT_GENERATION, EngineKind.TRANSFORMERS, version="3")
ECHO = ModelSpec("echo", Task.SYNTHETIC, EngineKind.SYNTHETIC)


class StagedWorker:
    """Publishes what a worker would, at the test's word."""

    def __init__(self, connection: Connection, tenant: str = "default") -> None:
        self.connection = connection
        self.tenant = tenant

    async def _event(self, job: headrace.Handle, event: AnyEvent) -> None:
        await publish_event(self.connection, self.tenant, job.model, event, Encoding.MSGPACK)

    async def start(self, job: headrace.Handle, attempt: int = 1) -> None:
        await self._event(job, Started(job.id, datetime.now(UTC), attempt, "staged"))

    async def progress(self, job: headrace.Handle, step: float, total: float) -> None:
        await self._event(job, Progress(job.id, datetime.now(UTC), 1, step, total))

    async def say(self, job: headrace.Handle, *pieces: str, attempt: int = 1, first_seq: int = 0) -> None:
        for seq, piece in enumerate(pieces, first_seq):
            await self._event(job, Chunk(job.id, datetime.now(UTC), attempt, seq, piece))

    async def retry(self, job: headrace.Handle, why: str, attempt: int = 1) -> None:
        await self._event(job, Retrying(job.id, datetime.now(UTC), attempt, ErrorCode.MODEL_ERROR, why, 0.5))

    async def succeed(
        self,
        job: headrace.Handle,
        output: dict[str, object],
        artifacts: tuple[Artifact, ...] = (),
        encoding: Encoding = Encoding.MSGPACK,
    ) -> Committed:
        return await self._end(job, Status.SUCCEEDED, output, artifacts, None, encoding)

    async def fail(self, job: headrace.Handle, message: str) -> Committed:
        error = ResultError(ErrorCode.MODEL_ERROR, message, Fault.MODEL, retryable=False)
        return await self._end(job, Status.FAILED, None, (), error, Encoding.MSGPACK)

    async def _end(
        self,
        job: headrace.Handle,
        status: Status,
        output: dict[str, object] | None,
        artifacts: tuple[Artifact, ...],
        error: ResultError | None,
        encoding: Encoding,
    ) -> Committed:
        result = Result(
            id=job.id,
            model=job.model,
            version="1",
            status=status,
            output=msgspec.Raw(codec.encode(output, encoding)),
            attempts=1,
            created_at=datetime.now(UTC),
            completed_at=datetime.now(UTC),
            worker="staged",
            artifacts=artifacts,
            error=error,
            timings=Timings(queued_s=0.25, run_s=1.5),
        )
        return await commit_result(self.connection, self.tenant, result, encoding)

    async def store(self, client: headrace.Client, job: headrace.Handle, name: str, data: bytes) -> Artifact:
        """Put an artifact where a worker would."""
        key = artifact_prefix(self.tenant, job.model, job.id, "a1") + name.rpartition("/")[2]
        store = await client.blobs()
        return (await store.put(key, data, "image/png")).as_artifact(name)


async def until_submitted(client: headrace.Client, job_id: str) -> headrace.Handle:
    """The job of this id, once another process has submitted it."""
    async with asyncio.timeout(30):
        while (job := await find_job(client.connection, client.settings.tenant, job_id)) is None:
            await asyncio.sleep(0.01)
    return client.handle(job.model, job_id)
