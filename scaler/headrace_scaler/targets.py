"""Which workers serve metrics, for Prometheus' `http_sd_configs`: as their heartbeats say, whether we lead or not."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import NoReturn

import msgspec

from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.heartbeat import WorkerStatus
from headrace_storage.connection import Connection
from headrace_storage.workers import list_workers

LOOK_EVERY_S = 2.0


class TargetGroup(msgspec.Struct, frozen=True):
    """Prometheus' own form: addresses, and labels that all of them get."""

    targets: tuple[str, ...]
    labels: dict[str, str]


class Targets:
    """The page `/targets`. It keeps what was read last: an outage of the broker must not hide workers that run on."""

    def __init__(self) -> None:
        self._page: bytes | None = None

    def page(self) -> bytes | None:
        """JSON of all targets; None before the first look. May be called in any thread."""
        return self._page

    def seen(self, workers: Iterable[WorkerStatus]) -> None:
        """Take over what the heartbeats say."""
        groups = [TargetGroup((worker.metrics,), {"worker": worker.id}) for worker in workers if worker.metrics]
        self._page = msgspec.json.encode(groups)

    async def keep(self, connection: Connection) -> NoReturn:
        """Look again and again, until canceled."""
        while True:
            # An outage is said by whoever scales.
            with contextlib.suppress(BrokerUnavailable):
                self.seen(await list_workers(connection))
            await asyncio.sleep(LOOK_EVERY_S)
