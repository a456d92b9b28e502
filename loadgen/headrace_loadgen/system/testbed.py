"""Everything that takes part in a run: brokers, store, wires and workers, started on entry and gone on exit."""

import asyncio
import contextlib
import os
import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from headrace_contracts.errors import BrokerUnavailable, HeadraceError
from headrace_contracts.heartbeat import EngineState
from headrace_contracts.model import ModelSpec
from headrace_contracts.settings import NatsSettings, S3Settings, Settings
from headrace_loadgen.system.fleet import PRODUCTION, Fleet, Worker
from headrace_loadgen.system.http_proxy import HttpProxy
from headrace_loadgen.system.nats_cluster import brokers
from headrace_loadgen.system.proxy import Proxy
from headrace_loadgen.system.s3_server import ACCESS_KEY, SECRET_KEY, S3Kind, S3Server
from headrace_storage.connection import Connection
from headrace_storage.registry import add_model
from headrace_storage.topology import StorageLimits, ensure_topology
from headrace_storage.workers import list_workers

TENANT = "chaos"
# A cluster elects first, and a worker imports its engine on a busy machine.
START_DEADLINE_S = 90.0


@dataclass(frozen=True)
class Layout:
    """What a testbed is made of."""

    models: Sequence[ModelSpec]
    lease_s: float
    workers: int = 2
    brokers: int = 1
    """1, or 3 for a cluster whose streams have three replicas."""
    sync_always: bool = False
    store: S3Kind = "juicefs"
    limits: StorageLimits = field(default_factory=StorageLimits)
    command: Sequence[str] = PRODUCTION
    """Starts a worker; `--model` options follow."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further variables of the workers."""
    grace_s: float = 25.0


class Testbed:
    """The system, and every handle a fault needs."""

    __test__ = False

    def __init__(self, layout: Layout, folder: Path, rng: random.Random) -> None:
        self.layout = layout
        self.folder = folder
        self.rng = rng
        self.brokers = brokers(folder, layout.brokers, layout.sync_always)
        self.store = S3Server(layout.store, folder / "s3")
        self.client_wires: list[Proxy] = []
        self.fleet = Fleet([])
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @property
    def direct(self) -> Settings:
        """To the servers themselves: for those who watch."""
        urls = ",".join(broker.url for broker in self.brokers)
        return Settings(nats=NatsSettings(url=urls), s3=self.store.settings, tenant=TENANT)

    @property
    def for_clients(self) -> Settings:
        """Over the wires of clients."""
        urls = ",".join(f"nats://127.0.0.1:{wire.port}" for wire in self.client_wires)
        return Settings(nats=NatsSettings(url=urls), s3=self._s3_by_wire, tenant=TENANT)

    @property
    def _s3_by_wire(self) -> S3Settings:
        return S3Settings(f"http://127.0.0.1:{self.store_wire.port}", ACCESS_KEY, SECRET_KEY)

    async def until_ready(self) -> None:
        """Wait until every worker that runs has its engines ready.

        Raises:
            TimeoutError: one was not ready in time.
        """
        async with asyncio.timeout(START_DEADLINE_S):
            while not await self._all_ready():  # noqa: ASYNC110 - other processes: only asking tells
                await asyncio.sleep(0.05)

    async def start_workers(self) -> None:
        """Start the workers of the layout; they are not waited for."""
        workers = [await self._new_worker(f"worker-{number}") for number in range(self.layout.workers)]
        self.fleet = await self._stack.enter_async_context(Fleet(workers))

    async def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        enter = self._stack.enter_async_context
        for broker in self.brokers:
            # Entered in order, started together: a cluster is ready when most of it is there.
            self._stack.push_async_callback(broker.stop)
        await asyncio.gather(*(broker.start() for broker in self.brokers))
        await enter(self.store)
        self.store_wire = await enter(HttpProxy(self.store.port, self.rng))
        self.client_wires = [await enter(Proxy(broker.port, self.rng)) for broker in self.brokers]
        async with asyncio.timeout(START_DEADLINE_S):
            self.watch = await self._connect()
            await self._declare()

    async def _connect(self) -> Connection:
        while True:
            connection = Connection(self.direct.nats, name="watch", connect_deadline_s=START_DEADLINE_S)
            try:
                return await self._stack.enter_async_context(connection)
            except BrokerUnavailable:
                if len(self.brokers) == 1:
                    raise
                # A cluster without a leader does not answer.
                await asyncio.sleep(0.2)

    async def _declare(self) -> None:
        limits = self.layout.limits
        while True:
            try:
                await ensure_topology(self.watch, limits)
                for spec in self.layout.models:
                    await add_model(self.watch, spec, ack_wait_s=self.layout.lease_s)
            except Exception:
                # A cluster that is electing refuses in many ways; with one server nothing of it is to be expected.
                if len(self.brokers) == 1:
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    async def _new_worker(self, name: str) -> Worker:
        command = [*self.layout.command, "--grace-s", str(self.layout.grace_s)]
        if not self.layout.sync_always:
            command.append("--allow-unsafe-broker")  # the broker is no subject of this run
        for spec in self.layout.models:
            command += ["--model", spec.name]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("NATS_", "S3_", "AWS_"))}
        s3 = self._s3_by_wire
        environment = {
            **inherited,
            "S3_ENDPOINT_URL": s3.endpoint_url,
            "AWS_ACCESS_KEY_ID": s3.access_key_id,
            "AWS_SECRET_ACCESS_KEY": s3.secret_access_key,
            "HEADRACE_CACHE_DIR": str(self.folder / "cache"),
            "PYTHONUNBUFFERED": "1",
            **self.layout.environment,
        }
        worker = Worker(name, command, environment, self.folder)
        worker.wires = [await self._stack.enter_async_context(Proxy(broker.port, self.rng)) for broker in self.brokers]
        return worker

    async def _all_ready(self) -> bool:
        ready: set[int] = set()
        with contextlib.suppress(HeadraceError):
            for status in await list_workers(self.watch):
                if len(status.engines) == len(self.layout.models) and all(
                    engine.state is EngineState.READY for engine in status.engines
                ):
                    ready.add(status.pid)
        return all(worker.pid in ready for worker in self.fleet.workers)
