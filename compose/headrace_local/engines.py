"""What the engines of one worker do, read from its heartbeats."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import NoReturn

from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.heartbeat import EngineState, EngineStatus
from headrace_storage.connection import Connection
from headrace_storage.workers import list_workers

POLL_S = 0.5

SETTLED = frozenset({EngineState.READY, EngineState.UNHEALTHY})


class EngineBoard:
    """The last known state of each model's engine; reports every change."""

    def __init__(self, models: Iterable[str], on_change: Callable[[EngineStatus], None]) -> None:
        self.states: dict[str, EngineStatus | None] = dict.fromkeys(models)
        self.settled = asyncio.Event()
        """Set while every engine is either ready or given up."""
        self._on_change = on_change

    def update(self, engines: Iterable[EngineStatus]) -> None:
        """Take in one heartbeat."""
        for engine in engines:
            if engine.model not in self.states:
                continue
            before = self.states[engine.model]
            self.states[engine.model] = engine
            if before is None or (before.state, before.detail) != (engine.state, engine.detail):
                self._on_change(engine)
        self._settle()

    def forget(self) -> None:
        """The worker ended: nothing is known until the next one speaks."""
        self.states = dict.fromkeys(self.states)
        self._settle()

    def unhealthy(self) -> list[EngineStatus]:
        """Engines that cannot be started."""
        return [engine for engine in self.states.values() if engine and engine.state is EngineState.UNHEALTHY]

    def _settle(self) -> None:
        if all(engine and engine.state in SETTLED for engine in self.states.values()):
            self.settled.set()
        else:
            self.settled.clear()

    async def watch(self, connection: Connection, worker_pid: Callable[[], int | None]) -> NoReturn:
        """Follow the heartbeats of the process `worker_pid()` of this machine, until canceled."""
        while True:
            try:
                workers = await list_workers(connection)
            except BrokerUnavailable:
                workers = []  # it is being started again; so are we
            for worker in workers:
                if worker.pid == worker_pid() and worker.host == _host():
                    self.update(worker.engines)
            await asyncio.sleep(POLL_S)


def _host() -> str:
    return socket.gethostname()
