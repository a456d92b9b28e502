"""The whole system on one machine: broker, registry, workers; started in this order, stopped in the other.

Owns the processes and keeps them running. Jobs, results and blobs are in the folder, so the next start finds what was
queued; what runs is run again.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Self

import msgspec

from headrace_contracts.clock import Clock, SystemClock
from headrace_contracts.errors import HeadraceError
from headrace_contracts.heartbeat import EngineStatus
from headrace_contracts.model import ModelSpec
from headrace_contracts.settings import NatsSettings, Settings
from headrace_local.engines import EngineBoard
from headrace_local.folder import locked
from headrace_local.keeper import Ended, Restartable, keep_running
from headrace_local.models import check_installed
from headrace_local.nats_server import NatsServer
from headrace_local.scaled_workers import ScaledWorkers
from headrace_local.worker_process import WorkerError, WorkerProcess, worker_environment
from headrace_scaler.telling import Told
from headrace_storage.connection import Connection
from headrace_storage.leadership import end_all_terms
from headrace_storage.registry import add_model
from headrace_storage.topology import ensure_topology

DEFAULT_PORT = 4222
# Importing every library takes seconds, on a slow disk more; jobs are served all the same.
WARM_DEADLINE_S = 60.0

Event = EngineStatus | Ended | Told


class LocalSystem:
    """A running Headrace: an async context manager, entered once."""

    def __init__(
        self,
        models: Sequence[ModelSpec],
        folder: Path,
        settings: Settings,
        port: int = DEFAULT_PORT,
        own_server: bool = True,
        scaled: bool = True,
        on_event: Callable[[Event], None] = lambda _event: None,
        clock: Clock | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            models: what the worker runs; each is put into the registry.
            folder: for the queue, results and logs; made if missing, used by one system at a time.
            settings: for blobs and caches; for the broker too, unless it is our own.
            port: of our own broker, or `RANDOM_PORT`.
            own_server: start a nats-server; else use the one of `settings`.
            scaled: a scaler starts and stops workers as jobs come; else one worker runs all models all the time.
            on_event: told of every change of an engine, every end of a process, and everything the scaler decides.
            clock: for the pace of restarts.
        """
        self.folder = folder
        self.settings = settings
        """How clients reach this system; complete once it has been entered."""
        self._models = models
        self._port = port
        self._own_server = own_server
        self.scaled = scaled
        """Whether a scaler starts and stops the workers."""
        self._on_event = on_event
        self._clock = clock or SystemClock()
        self._board = EngineBoard([spec.name for spec in models], on_event)
        self._worker: WorkerProcess | None = None
        self._workers: ScaledWorkers | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self._looping = asyncio.Event()
        self._last_end: Ended | None = None
        self._running = contextlib.AsyncExitStack()

    @property
    def worker_pid(self) -> int | None:
        """Process id of the one worker's present run; None between two, and where a scaler starts them."""
        return None if self._worker is None else self._worker.pid

    async def __aenter__(self) -> Self:
        """Start everything; the engines go on loading.

        Raises:
            HeadraceError: says what is missing, taken or wrong, and what to do. Nothing is left running.
        """
        for spec in self._models:
            check_installed(spec)
        async with contextlib.AsyncExitStack() as stack:
            lock = await stack.enter_async_context(locked(self.folder))
            server = await self._start_server(stack, lock) if self._own_server else None
            connection = await stack.enter_async_context(Connection(self.settings.nats, "headrace-up"))
            await ensure_topology(connection)
            if self._own_server:
                # Whoever led on this broker ended with its last run: nobody need wait for a lease to run out.
                await end_all_terms(connection)
            for spec in self._models:
                await add_model(connection, spec)
            await self._start_workers(stack, connection)
            stack.push_async_callback(self._stop_keepers)
            if server is not None:
                self._keep("nats-server", _Broker(server, connection))
            self._running = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._running.aclose()

    async def wait_settled(self) -> list[EngineStatus]:
        """Wait until every engine is ready or given up; those that were given up. At once where a scaler starts them.

        Raises:
            WorkerError: a process does not stay up.
        """
        if self.scaled:
            return []
        waits = [asyncio.create_task(event.wait()) for event in (self._board.settled, self._looping)]
        try:
            await asyncio.wait([*waits, *self._keepers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._raise_failure()
        if not self._board.settled.is_set():
            assert self._last_end is not None
            name, how = self._last_end.name, self._last_end.how
            raise WorkerError(f"the {name} does not stay up ({how}): its log is in {self.folder}")
        return self._board.unhealthy()

    async def wait_warm(self) -> int:
        """Wait until workers start fast; bytes of memory of their warm parent, 0 where there is none or it is late."""
        use = None if self._workers is None else await self._workers.wait_warm(WARM_DEADLINE_S)
        return 0 if use is None else use.pss_bytes

    async def stay(self) -> None:
        """Keep running until canceled."""
        await asyncio.wait(self._keepers, return_when=asyncio.FIRST_COMPLETED)
        self._raise_failure()

    def hurry(self) -> None:
        """While stopping: do not wait for the jobs that run; another worker runs them again."""
        if self._worker is not None:
            self._worker.kill_now()
        if self._workers is not None:
            self._workers.hurry()

    async def _start_server(self, stack: contextlib.AsyncExitStack, lock: int) -> NatsServer:
        server = await stack.enter_async_context(
            NatsServer(self.folder / "nats", self._port, sync_always=True, keep_open=[lock])
        )
        self.settings = msgspec.structs.replace(
            self.settings, nats=NatsSettings(url=server.url, monitor_url=server.monitor_url)
        )
        return server

    async def _start_workers(self, stack: contextlib.AsyncExitStack, connection: Connection) -> None:
        environment = worker_environment(self.settings.nats.url, self._own_server, self.settings.nats.monitor_url)
        if self.scaled:
            self._workers = ScaledWorkers(
                self._models, self.settings, environment, self.folder / "workers", self._clock, self._on_event
            )
            stack.push_async_callback(self._workers.stop)
            await self._workers.start()
            self._spawn(self._workers.wait())
            return
        self._worker = WorkerProcess([spec.name for spec in self._models], environment, self.folder)
        stack.push_async_callback(self._worker.stop)
        await self._worker.start()
        self._keep("worker", self._worker)
        self._spawn(self._board.watch(connection, lambda: self.worker_pid))

    def _keep(self, name: str, program: Restartable) -> None:
        self._spawn(keep_running(name, program, self._clock, self._ended))

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        self._keepers.append(asyncio.create_task(coroutine))

    def _ended(self, end: Ended) -> None:
        self._last_end = end
        self._board.forget()
        if end.pace.looping:
            self._looping.set()
        self._on_event(end)

    async def _stop_keepers(self) -> None:
        """First of all, or they would start again what we stop."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.wait(self._keepers)
        self._raise_failure()

    def _raise_failure(self) -> None:
        for keeper in self._keepers:
            if keeper.done() and not keeper.cancelled() and (error := keeper.exception()):
                raise error


class _Broker:
    """The broker to its keeper: a start is complete when its streams are there (those in memory end with it)."""

    def __init__(self, server: NatsServer, connection: Connection) -> None:
        self._server = server
        self._connection = connection

    async def start(self) -> None:
        await self._server.start()
        try:
            await ensure_topology(self._connection)
        except HeadraceError:
            await self._server.stop()
            raise

    async def wait(self) -> str:
        return await self._server.wait()
