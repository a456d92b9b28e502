"""The SDK's door: submit jobs, follow them, and look at what there is.

Talks to the broker and the blob store by way of `headrace_storage`; knows no NATS.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Self
from uuid import uuid4

from headrace.canceling import Origin, cancel_job, request_cancel
from headrace.errors import BatchIncomplete, UnknownJob
from headrace.handle import Handle
from headrace.inputs import Upload, prepare, upload
from headrace.job_status import JobStatus, status_of
from headrace.results import JobResult
from headrace.spec_cache import SpecCache
from headrace.streaming import TextSoFar
from headrace.submission import Order, at_position, in_flight
from headrace.submit_trace import SubmitTrace
from headrace.waiting import wait
from headrace_contracts.clock import Clock, SystemClock
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import BrokerForbidden, UnknownModel
from headrace_contracts.event import AnyEvent
from headrace_contracts.heartbeat import WorkerStatus
from headrace_contracts.job import JobBody, Scalar
from headrace_contracts.log_line import LogLine
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import Lane, check_token
from headrace_contracts.settings import Settings, load_settings
from headrace_storage import jobs, registry, workers
from headrace_storage.blobs.port import BlobStore
from headrace_storage.connection import Connection
from headrace_storage.events import follow_events, last_event
from headrace_storage.lanes import LaneState, lanes_of_model
from headrace_storage.log_lines import follow_lines
from headrace_storage.lookup import find_job
from headrace_storage.results import find_result, get_result

# Five times as long as a worker keeps lines to send them together.
LAST_LINES_S = 0.5


class Client:
    """A connection for submitting jobs; an async context manager.

    Args:
        settings: where the broker and the blob store are; by default what `load_settings` finds.
        clock: for tests.
    """

    def __init__(self, settings: Settings | None = None, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._specs = SpecCache(self._clock)
        self._trace = SubmitTrace(self._clock)
        self._stack = AsyncExitStack()
        self._open: Connection | None = None
        self._blobs: BlobStore | None = None
        self._opening_blobs = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            SettingsError: a settings file or variable is wrong.
            BrokerUnavailable: no NATS server answered, or it refused us.
        """
        if self._open is not None:
            raise RuntimeError("this client is open already")
        self._settings = self._settings or load_settings()
        self._open = await self._stack.enter_async_context(Connection(self._settings.nats, name="headrace-sdk"))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._open = self._blobs = None
        await self._stack.aclose()
        await self._trace.close()

    @property
    def connection(self) -> Connection:
        """The connection to the broker, for `headrace_storage`."""
        if self._open is None:
            raise RuntimeError("the client is not open: use `async with headrace.Client() as client:`")
        return self._open

    @property
    def settings(self) -> Settings:
        """What this client was told, or found."""
        return self._settings or load_settings()

    async def submit(
        self,
        model: str,
        /,
        *,
        lane: str = "normal",
        job_id: str | None = None,
        timeout_s: float | None = None,
        ttl_s: float | None = None,
        metadata: Mapping[str, Scalar] | None = None,
        traceparent: str | None = None,
        **inputs: object,
    ) -> Handle:
        """Submit a job; returns when the broker has stored it.

        Args:
            model: name in the registry.
            lane: `high`, `normal` or `low`.
            job_id: for callers who may submit the same job twice: under one id it is stored once.
            timeout_s: longest run of one attempt; the model's own limit if smaller.
            ttl_s: longest wait in the queue; then the job ends as `expired`.
            metadata: returned with the result.
            traceparent: W3C trace context that its spans are below; by default OpenTelemetry's current span.
            inputs: the model's input. A file is a pathlib.Path, bytes, an open binary file, or another job's artifact.

        Raises:
            UnknownModel: no such model.
            InvalidInput: names the field and the limit it broke; nothing was sent.
            QueueFull: the broker takes no more jobs now: this queue is full, or (`BrokerFull`) all of its storage.
            JobConflict: another job has this id.
            MessageTooLarge: the job does not fit one message.
            BlobError: a file could not be uploaded.
            BrokerUnavailable: no receipt; with a `job_id` it is safe to submit again. `BrokerStorageFailing`: the
                broker answers, and stores nothing.
        """
        order = Order(lane=lane, timeout_s=timeout_s, ttl_s=ttl_s, metadata=metadata or {}, traceparent=traceparent)
        job_id = uuid4().hex if job_id is None else check_token("job id", job_id)
        prepared = await prepare(await self.model(model), self.settings.tenant, inputs)
        body = order.body(prepared.input)
        await self._upload(prepared.uploads)
        return await self._publish(model, order, body, job_id)

    async def submit_many(
        self,
        model: str,
        inputs: Iterable[Mapping[str, object]],
        /,
        *,
        lane: str = "normal",
        batch: str | None = None,
        timeout_s: float | None = None,
        ttl_s: float | None = None,
        metadata: Mapping[str, Scalar] | None = None,
    ) -> list[Handle]:
        """Submit many jobs at once; returns their handles, in order, when the broker has stored all of them.

        All inputs are checked before the first job is sent. The jobs share one batch name, `batch` or a new one.

        Raises:
            InvalidInput: names the place and the field, as in `inputs[3].steps`; nothing was sent.
            BatchIncomplete: the broker stopped taking jobs on the way; it has the handles of those it took.
            UnknownModel, BlobError: as for `submit`.
        """
        order = Order(lane=lane, timeout_s=timeout_s, ttl_s=ttl_s, metadata=metadata or {}, batch=batch or uuid4().hex)
        spec = await self.model(model)
        bodies: list[JobBody] = []
        uploads: dict[str, Upload] = {}
        for position, values in enumerate(inputs):
            with at_position(position):
                prepared = await prepare(spec, self.settings.tenant, values)
                bodies.append(order.body(prepared.input))
            uploads |= {upload.key: upload for upload in prepared.uploads}
        await self._upload(uploads.values())
        publishing = [partial(self._publish, model, order, body, uuid4().hex) for body in bodies]
        handles, failure = await in_flight(publishing)
        if failure is not None:
            raise BatchIncomplete(str(order.batch), tuple(handles), len(bodies), failure) from failure
        return handles

    async def _upload(self, uploads: Iterable[Upload]) -> None:
        for wanted in uploads:
            await upload(await self.blobs(), wanted, self._clock)

    async def _publish(self, model: str, order: Order, body: JobBody, job_id: str) -> Handle:
        created_at = self._clock.now()
        lane = Lane(order.lane)
        tenant, ingress = self.settings.tenant, self.settings.ingress
        with self._trace.submitting(order.trace, tenant, model, lane, job_id) as trace:
            await jobs.submit_job(
                self.connection, tenant, model, lane, body, Encoding.MSGPACK, job_id, ingress=ingress, trace=trace
            )
        return Handle(self, model, job_id, Origin(Encoding.MSGPACK, created_at, body.metadata))

    def handle(self, model: str, job_id: str) -> Handle:
        """A job that was submitted before, here or elsewhere; not looked up."""
        return Handle(self, model, job_id)

    async def find(self, job_id: str) -> Handle:
        """A job by its id alone.

        Raises:
            UnknownJob: there is no trace of it.
        """
        tenant = self.settings.tenant
        result = await find_result(self.connection, tenant, job_id)
        if result is not None:
            return Handle(self, result.model, job_id)
        event = await last_event(self.connection, tenant, job_id)
        if event is not None:
            return Handle(self, event.model, job_id)
        job = await find_job(self.connection, tenant, job_id)
        if job is not None:
            return Handle(self, job.model, job_id, Origin.of(job))
        # It may have ended while we looked.
        result = await find_result(self.connection, tenant, job_id)
        if result is None:
            raise UnknownJob(job_id, tenant)
        return Handle(self, result.model, job_id)

    async def result(self, model: str, job_id: str, timeout_s: float | None = None) -> JobResult:
        """Wait until a job has ended, whatever the end; a broker that restarts meanwhile is waited for.

        Raises:
            ResultTimeout: it had not ended after `timeout_s`; it goes on.
            BrokerUnavailable: the broker did not answer for half a minute.
        """
        found = await wait(self.connection, self.settings.tenant, model, job_id, timeout_s, self._clock)
        return JobResult(found, self.blobs)

    async def events(self, model: str, job_id: str) -> AsyncGenerator[AnyEvent, None]:
        """What happens to a job, from its beginning to its end; the iterator ends when the job has.

        Events are kept for an hour, in the broker's memory: after its restart some may be missing.
        """
        async with _until_over(self.result(model, job_id)) as ended:
            following = follow_events(self.connection, self.settings.tenant, model, job_id, ended)
            async with contextlib.aclosing(following):
                async for event in following:
                    yield event

    async def logs(self, model: str, job_id: str) -> list[LogLine]:
        """What workers have logged about a job until now, in order; of a job that nobody took, nothing.

        Lines are kept for a day, in the broker's memory: after its restart some may be missing. A worker sends them a
        moment after it wrote them.
        """
        now = asyncio.Event()
        now.set()
        following = follow_lines(self.connection, self.settings.tenant, model, job_id, now)
        async with contextlib.aclosing(following):
            return [line async for line in following]

    async def follow_logs(self, model: str, job_id: str) -> AsyncGenerator[LogLine, None]:
        """As `logs`, and then each line as it comes; the iterator ends soon after the job has."""

        async def last_lines() -> None:
            await self.result(model, job_id)
            # The last lines are written when the result is there, and sent after that.
            await asyncio.sleep(LAST_LINES_S)

        async with _until_over(last_lines()) as ended:
            following = follow_lines(self.connection, self.settings.tenant, model, job_id, ended)
            async with contextlib.aclosing(following):
                async for line in following:
                    yield line

    async def stream(self, model: str, job_id: str) -> AsyncGenerator[str, None]:
        """The text of a job as it is written; the pieces joined are the text of its result.

        An attempt that is repeated goes on where the one before stopped, as long as it says the same.

        Raises:
            StreamRestarted: a later attempt said something else: take the result's text.
            JobFailed: the job ended otherwise than `succeeded`.
        """
        text = TextSoFar(job_id)
        events = self.events(model, job_id)
        async with contextlib.aclosing(events):
            async for event in events:
                if piece := text.take(event):
                    yield piece
        result = (await self.result(model, job_id)).raise_for_status()
        if rest := text.finish(result.text or ""):
            yield rest

    async def status(self, model: str, job_id: str, *, submitted: bool = False) -> JobStatus:
        """Where a job is now.

        Args:
            model: its model.
            job_id: its id.
            submitted: the caller has its receipt, so without a trace of its end or its run it must be in the queue.

        Raises:
            BrokerForbidden: a tenant's role may not look into the queue, and only there could it be.
        """
        return await status_of(self.connection, self.settings.tenant, model, job_id, self.blobs, submitted)

    async def cancel(self, model: str, job_id: str, origin: Origin | None = None) -> str:
        """Stop a job, wherever it is.

        Args:
            model: its model.
            job_id: its id.
            origin: what a handle knows of its job; without it the job is looked up in the queue.

        Returns:
            `canceled` (it had not begun), `canceling` (its worker has been told to stop; the result is final already),
            or `already <status>`, when it had ended before.

        Raises:
            UnknownJob: there is no trace of it.
        """
        tenant = self.settings.tenant
        ended = await get_result(self.connection, tenant, model, job_id)
        if ended is None and origin is None:
            try:
                job = await find_job(self.connection, tenant, job_id, model)
            except BrokerForbidden:
                # A tenant's role may not look into the queue, and may cancel what is its own: unseen.
                origin = Origin(Encoding.JSON, self._clock.now(), {})
            else:
                if job is not None:
                    origin = Origin.of(job)
                else:
                    ended = await get_result(self.connection, tenant, model, job_id)
        if ended is not None:
            return f"already {ended.status}"
        if origin is None:
            raise UnknownJob(job_id, tenant)
        if self.settings.ingress:
            return await request_cancel(self.connection, tenant, model, job_id, origin)
        try:
            version = (await self.model(model)).version
        except UnknownModel:
            version = ""
        return await cancel_job(self.connection, tenant, model, job_id, version, origin, self._clock)

    async def model(self, name: str) -> ModelSpec:
        """One model of the registry, a few seconds old at most.

        Raises:
            UnknownModel: no such model; the error names those there are.
        """
        return await self._specs.get(self.connection, name)

    async def models(self) -> list[ModelSpec]:
        """All models of the registry, by name."""
        return await registry.list_models(self.connection)

    async def workers(self) -> list[WorkerStatus]:
        """Workers that are alive."""
        return await workers.list_workers(self.connection)

    async def backlog(self, model: str) -> list[LaneState]:
        """What waits and what is held by workers, per lane."""
        return list(await lanes_of_model(self.connection, model))

    async def blobs(self) -> BlobStore:
        """The blob store, opened when it is first needed.

        Raises:
            BlobError: it cannot be reached, or refused us.
        """
        connection = self.connection
        async with self._opening_blobs:
            if self._blobs is None:
                # Most clients never touch a file, and the stores take a while to import.
                from headrace_storage.blobs import open_blobs

                store = open_blobs(self.settings, connection.nc, of_tenant=True)
                self._blobs = await self._stack.enter_async_context(store)
            return self._blobs


@contextlib.asynccontextmanager
async def _until_over(waited_for: Coroutine[Any, Any, object]) -> AsyncIterator[asyncio.Event]:
    """Wait beside the block: the event is set when that is over, and what it raised comes at the end of the block."""
    over = asyncio.Event()
    waiting = asyncio.create_task(waited_for)
    waiting.add_done_callback(lambda _: over.set())
    try:
        yield over
        await waiting
    finally:
        waiting.cancel()
        await asyncio.wait([waiting])
