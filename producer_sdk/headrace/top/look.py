"""Looks at the system again and again: some ten small requests a time, whatever the queue and the load are."""

import asyncio
import socket
from collections.abc import Iterable
from datetime import datetime

import msgspec

from headrace.top.gpus import gpu_use
from headrace.top.speed import Speeds
from headrace.top.view import Firing, Seen, View, rows_of, slots_of
from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerForbidden, BrokerUnavailable, UndecodableMessage
from headrace_contracts.job import decode_job
from headrace_storage.alert_history import alerts_since, decisions_of
from headrace_storage.connection import Connection
from headrace_storage.lanes import LaneState, lanes_of_all, oldest_waiting
from headrace_storage.leadership import LeaseName, leader_of
from headrace_storage.newest_results import newest_ends
from headrace_storage.reading import Stored
from headrace_storage.registry_reader import RegistryReader
from headrace_storage.workers import list_workers


class Looker:
    """Keeps from one look to the next what need not be asked again."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._registry = RegistryReader(connection)
        self._speeds = Speeds()
        self._firing = Firing()
        self._next_alert = 1
        self._next_end: int | None = None
        self._last = View(clock.now(), connection.url, connection.server_version, None, {}, ())

    async def look(self) -> View:
        """What is there now; while the broker does not answer, what was there before, and why.

        Raises:
            BrokerForbidden: this role may not see all of it.
        """
        try:
            if not self._connection.is_connected:
                raise BrokerUnavailable(self._connection.url, self._connection.last_error or "the connection is lost")
            self._last = await self._look()
        except BrokerForbidden:
            raise
        except BrokerUnavailable as error:
            # The broker that comes back may be another, whose streams count from 1: alerts are read anew.
            self._firing, self._next_alert = Firing(), 1
            since = self._last.outage_since or self._clock.now()
            self._last = msgspec.structs.replace(self._last, outage=error.reason, outage_since=since)
        return self._last

    async def _look(self) -> View:
        connection = self._connection
        models = await self._registry.models()
        lanes = await lanes_of_all(connection)
        workers = await list_workers(connection)
        names = sorted({*models, *lanes})
        alerts = await alerts_since(connection, self._next_alert)
        self._next_alert = alerts.next_sequence
        self._firing.take(alerts.alerts)
        ends = await newest_ends(connection, self._next_end)
        self._next_end = ends.next_sequence
        decisions = await decisions_of(connection, names)
        oldest = await self._oldest(lane for of_model in lanes.values() for lane in of_model)
        leader = await leader_of(connection, LeaseName.SCALER)
        gpus = await asyncio.to_thread(gpu_use)
        now = self._clock.now()
        self._speeds.take(ends, now)
        seen = Seen(
            models=frozenset(models),
            lanes=lanes,
            oldest=oldest,
            workers=workers,
            decisions=decisions,
            firing=self._firing.by_model(),
            speeds=self._speeds.by_model(now),
            gpus=gpus,
            host=socket.gethostname(),
        )
        version = connection.server_version
        return View(now, connection.url, version, leader, slots_of(workers), rows_of(seen, now), gpus)

    async def _oldest(self, lanes: Iterable[LaneState]) -> dict[str, datetime]:
        """Since when the oldest waiting job of each model waits."""
        since: dict[str, datetime] = {}
        for lane in lanes:
            message = await oldest_waiting(self._connection, lane)
            if message is None:
                continue
            at = _waits_since(message)
            since[lane.model] = min(at, since.get(lane.model, at))
        return since


def _waits_since(message: Stored) -> datetime:
    """One that came through an ingress stream waits since it was stored there."""
    try:
        job = decode_job(message.subject, message.headers, message.data, message.sequence, message.stored_at)
    except UndecodableMessage:
        return message.stored_at
    return job.created_at
