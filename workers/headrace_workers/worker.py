"""A worker process: connections, one `ModelWorker` per model, heartbeats, and an orderly end."""

import asyncio
import contextlib
import os
import random
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

import structlog

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerUnavailable, Retryable, UnknownModel
from headrace_contracts.heartbeat import ColdStart, DrainReply, DrainRequest, EngineState, WorkerStatus
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import check_token
from headrace_contracts.settings import Settings
from headrace_storage.blobs import open_blobs
from headrace_storage.blobs.port import BlobStore
from headrace_storage.connection import Connection
from headrace_storage.control import listen_for_drain
from headrace_storage.reaper import Act, Trouble, reap
from headrace_storage.registry import get_model
from headrace_storage.topology import HEARTBEAT_TTL_S, ensure_topology, lease_of_consumers
from headrace_storage.workers import put_status, remove_status
from headrace_telemetry.job_lines import JobLines
from headrace_telemetry.metrics_endpoint import serving_metrics
from headrace_telemetry.tracing import Tracing, tracing_if_wanted
from headrace_workers.accounting import EngineAccount
from headrace_workers.admission import check_defaults
from headrace_workers.broker_safety import refuse_unsafe
from headrace_workers.cold_start import spawn_s
from headrace_workers.company import Company
from headrace_workers.cost_book import CostBook, Payer, keep_books, write_pages
from headrace_workers.decoding.decoder import InputDecoder, takes_recordings
from headrace_workers.engine_host import EngineHost
from headrace_workers.forwarder import forward_ingress
from headrace_workers.line_sender import send_lines, send_rest
from headrace_workers.metrics import WorkerMetrics
from headrace_workers.model_worker import ModelWorker
from headrace_workers.patience import START_DEADLINE_S, patiently
from headrace_workers.surroundings import Surroundings

# Three heartbeats fit into the time after which a worker counts as gone.
HEARTBEAT_EVERY_S = HEARTBEAT_TTL_S / 3
# How long running jobs may go on after a SIGTERM; container platforms kill after 30 s.
GRACE_S = 25.0
# After that, engines get this long to stop at a step and jobs to be given back.
HAND_BACK_S = 15.0
RESTORE_PAUSE_S = 0.5
# A job that starts and ends changes the state several times within milliseconds.
CHANGES_TOGETHER_S = 0.05


class Worker:
    """Serves some models until it is told to stop, or to drain.

    Args:
        settings: of this process.
        models: names in the registry.
        clock: for leases, deadlines and records.
        grace_s: how long running jobs may go on after `stop`.
        allow_unsafe_broker: work on a broker that could lose accepted jobs.
        name: id in the WORKERS bucket, if whoever starts the worker has to know it; else one is made up.
        slot: where that starter put it, for the heartbeat.
        age_s: for how long the process has been there: that time is the worker's, too.
        lines: what is logged about jobs, to be sent to the broker; nothing is without.
    """

    def __init__(
        self,
        settings: Settings,
        models: tuple[str, ...],
        clock: Clock,
        grace_s: float = GRACE_S,
        *,
        allow_unsafe_broker: bool = False,
        name: str | None = None,
        slot: str = "",
        age_s: float = 0.0,
        lines: JobLines | None = None,
    ) -> None:
        self._settings = settings
        self._allow_unsafe_broker = allow_unsafe_broker
        self._models = models
        self._clock = clock
        self._grace_s = grace_s
        self._rng = random.SystemRandom()
        self.id = (
            check_token("worker id", name)
            if name
            else f"{_token(socket.gethostname())}-{os.getpid()}-{self._rng.getrandbits(24):06x}"
        )
        self._slot = slot
        self._lines = lines
        self._tracing: Tracing | None = None
        self._started_at = clock.now()
        self._began_at = clock.monotonic() - age_s
        self._books: list[CostBook] = []
        self._metrics = WorkerMetrics()
        self._metrics_at = ""
        self._stopping = asyncio.Event()
        self._draining = asyncio.Event()
        self._changed = asyncio.Event()
        self._model_workers: list[ModelWorker] = []
        self._background: list[asyncio.Task[None]] = []
        self._spawn_s = spawn_s(os.environ, clock)
        self._began = clock.monotonic()
        self._log = structlog.get_logger()

    def stop(self) -> None:
        """Finish what runs within the grace, give back the rest, and return from `run`. Calling it twice is fine."""
        self._stopping.set()
        self._draining.set()

    def _asked_to_drain(self, request: DrainRequest) -> DrainReply:
        """As `stop`, but nobody waits for us: what runs has all the time it needs, unless `stop` follows."""
        jobs = sum(model_worker.jobs_in_hand for model_worker in self._model_workers)
        if not (request.only_if_idle and jobs):
            self._draining.set()
        return DrainReply(self._draining.is_set(), jobs)

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            BrokerUnavailable: no broker at the start, or the connection was given up for good.
            UnknownModel: one of the models is not in the registry.
            TopologyDrift: the broker has other settings than Headrace needs.
            UnsafeBroker: the broker could lose accepted jobs, and that was not allowed.
            SettingsError: the port of the metrics is taken; or traces are asked for, and cannot be made.
        """
        # Every task of this worker begins inside, and so every line says it.
        with structlog.contextvars.bound_contextvars(worker=self.id):
            try:
                async with (
                    tracing_if_wanted(os.environ, "worker", self.id, self._clock, self._untaken) as self._tracing,
                    serving_metrics(self._metrics.registry, self._settings.metrics) as self._metrics_at,
                ):
                    await self._run()
            except ExceptionGroup as group:
                # A caller wants to know what went wrong, not which task noticed.
                raise _first(group) from group
            self._log.info("worker stopped")

    def _untaken(self, reason: str) -> None:
        self._log.warning("spans are not taken", error=reason)

    async def _run(self) -> None:
        async with (
            Connection(self._settings.nats, name=self.id, connect_deadline_s=START_DEADLINE_S) as connection,
            contextlib.AsyncExitStack() as stores,
            InputDecoder() as decoder,
        ):
            self._metrics.process.connected = lambda: connection.is_connected

            def hurried() -> bool:
                return self._stopping.is_set() or connection.closed.is_set()

            async def open_store() -> BlobStore:
                return await stores.enter_async_context(open_blobs(self._settings, connection.nc))

            specs = await patiently(lambda: self._specs(connection), self._clock, hurried)
            connect_s = round(self._clock.monotonic() - self._began, 4)
            with tempfile.TemporaryDirectory(prefix="headrace-") as scratch:
                try:
                    async with asyncio.TaskGroup() as tasks:
                        # Engines load while the broker is looked at: no job is pulled before it is found to be safe.
                        hosts = self._load(tasks, decoder, specs, ColdStart(self._spawn_s, connect_s))
                        await patiently(lambda: self._check(connection), self._clock, hurried)
                        blobs = await patiently(open_store, self._clock, hurried)
                        await self._serve(tasks, connection, blobs, decoder, hosts, Path(scratch))
                finally:
                    await write_pages(connection, self._books, ended=True)
                    if self._lines is not None:
                        await send_rest(connection, self._lines)
            with contextlib.suppress(BrokerUnavailable):
                await remove_status(connection, self.id)

    async def _specs(self, connection: Connection) -> list[ModelSpec]:
        """The models to serve."""
        try:
            return [await get_model(connection, name) for name in self._models]
        except UnknownModel:
            # A broker that is not ours has no models either: what is wrong with it is said first.
            await self._check(connection)
            return [await get_model(connection, name) for name in self._models]

    async def _check(self, connection: Connection) -> None:
        """Make sure that the broker is as it should be."""
        await refuse_unsafe(connection, self._settings.nats, self._models, allow_unsafe=self._allow_unsafe_broker)
        await ensure_topology(connection)

    def _load(
        self, tasks: asyncio.TaskGroup, decoder: InputDecoder, specs: list[ModelSpec], before: ColdStart
    ) -> list[EngineHost]:
        """Start the engines, which takes longer than all the rest."""
        hosts = []
        for spec in specs:
            check_defaults(spec)
            account = EngineAccount(self._clock, self._began_at)
            host = EngineHost(spec, self._settings.cache_path, self._clock, self._rng, account, before)
            host.on_change(self._changed.set)
            self._metrics.serves(spec.name, _state_of(host))
            self._background.append(tasks.create_task(host.supervise()))
            hosts.append(host)
        if any(takes_recordings(spec) for spec in specs):
            self._background.append(tasks.create_task(self._warm_up(decoder)))
        return hosts

    async def _serve(
        self,
        tasks: asyncio.TaskGroup,
        connection: Connection,
        blobs: BlobStore,
        decoder: InputDecoder,
        hosts: list[EngineHost],
        scratch: Path,
    ) -> None:
        """Start everything else, wait for `stop`, end everything. A task that dies takes the worker down with it."""
        self._background += [
            tasks.create_task(self._beat(connection)),
            tasks.create_task(self._watch(connection)),
            tasks.create_task(self._restore_topology(connection)),
            tasks.create_task(reap(connection, blobs, self._settings.reaper, self.id, self._clock, self._reaped)),
            tasks.create_task(forward_ingress(connection, self._clock)),
        ]
        if self._lines is not None:
            self._background.append(tasks.create_task(send_lines(connection, self._lines)))
        serving = []
        for host in hosts:
            lease_s = await lease_of_consumers(connection, host.spec.name)
            payer = Payer(self.id, slot=self._slot, models=len(hosts), prices=self._settings.scaler)
            book = CostBook(host, payer, self._clock)
            self._books.append(book)
            company = Company()
            around = Surroundings(
                *(connection, blobs, host, book, company, self._clock, self._rng, self.id),
                *(scratch, decoder, lease_s, self._metrics, self._tracing),
            )
            model_worker = ModelWorker(around, self._changed.set)
            self._model_workers.append(model_worker)
            serving.append(tasks.create_task(model_worker.serve()))
        await listen_for_drain(connection, self.id, self._asked_to_drain)
        self._background.append(tasks.create_task(keep_books(connection, self._books, self._clock)))
        # The first heartbeat may have had no engine in it, and an engine that is ready by now changes no more.
        self._changed.set()
        self._log.info("worker started", models=list(self._models))
        await self._draining.wait()
        await self._drain(serving)
        for task in self._background:
            task.cancel()

    async def _drain(self, serving: list[asyncio.Task[None]]) -> None:
        self._log.info("worker draining", grace_s=self._grace_s if self._stopping.is_set() else None)
        self._changed.set()
        for model_worker in self._model_workers:
            model_worker.drain()
        stopping = asyncio.create_task(self._stopping.wait())
        done = asyncio.create_task(asyncio.wait(serving))
        await asyncio.wait([stopping, done], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        done.cancel()
        _, running = await asyncio.wait(serving, timeout=self._grace_s)
        if running:
            for model_worker in self._model_workers:
                model_worker.hand_back()
            _, running = await asyncio.wait(running, timeout=HAND_BACK_S)
        for task in running:
            # Their jobs come back when the leases run out.
            task.cancel()

    async def _beat(self, connection: Connection) -> None:
        """Publish the worker's state: every few seconds, and soon after it changes."""
        while True:
            self._changed.clear()
            try:
                await put_status(connection, self._status())
            except BrokerUnavailable as error:
                self._log.warning("heartbeat not sent", error=str(error))
            try:
                async with asyncio.timeout(HEARTBEAT_EVERY_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
            # Many changes make one heartbeat, and a job on its way to the engine does not meet it.
            await asyncio.sleep(CHANGES_TOGETHER_S)

    async def _warm_up(self, decoder: InputDecoder) -> None:
        """So that the first recording does not wait for it; without it, the first one says what is wrong."""
        try:
            await decoder.warm_up()
        except Retryable as error:
            self._log.error("input decoder not ready", error=str(error))

    async def _watch(self, connection: Connection) -> None:
        """End the worker loudly when its connection was given up: only a new process helps."""
        await connection.closed.wait()
        raise BrokerUnavailable(connection.url, connection.last_error or "the connection was closed")

    async def _restore_topology(self, connection: Connection) -> None:
        """After every reconnect: streams and buckets in the broker's memory are gone if it was restarted."""
        reconnected = asyncio.Event()
        connection.on_reconnect(reconnected.set)
        while True:
            await reconnected.wait()
            reconnected.clear()
            try:
                await ensure_topology(connection)
            except BrokerUnavailable as error:
                self._log.warning("topology not checked yet", error=str(error))
                await asyncio.sleep(RESTORE_PAUSE_S)
                reconnected.set()
            self._changed.set()

    def _reaped(self, what: Act | Trouble) -> None:
        match what:
            case Act():
                self._log.info("reaped", rule=what.rule, what=what.what, done=what.done)
            case Trouble():
                self._log.warning("cannot reap", rule=what.rule, error=what.error)
            case _:
                assert_never(what)

    def _status(self) -> WorkerStatus:
        return WorkerStatus(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            at=self._clock.now(),
            draining=self._draining.is_set(),
            engines=tuple(model_worker.status for model_worker in self._model_workers),
            slot=self._slot,
            metrics=self._metrics_at,
        )


def _state_of(host: EngineHost) -> Callable[[], EngineState]:
    return lambda: host.state


def _first(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def _token(text: str) -> str:
    """Text as part of a key: other characters become dashes."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in text)[:40]
