"""Clients that write down everything they ask for and everything they are told."""

import asyncio
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec

from headrace import Client, Handle
from headrace_contracts.clock import Clock
from headrace_contracts.errors import HeadraceError, JobConflict, ResultTimeout
from headrace_contracts.names import jobs_subject
from headrace_loadgen import evidence
from headrace_loadgen.journal import Journal
from headrace_loadgen.orders import Order
from headrace_loadgen.records import (
    Accepted,
    AnyClientRecord,
    BacklogRead,
    CancelAnswered,
    Canceling,
    NotAccepted,
    ResultRead,
    Submitting,
)
from headrace_loadgen.system.testbed import TENANT

# Jobs whose client is busy at once.
IN_FLIGHT = 64
BURST_EVERY_S = 4.0
# A client that got no receipt tries again with the same id, until somebody tells it to stop.
PAUSE_S = 0.2
READ_PATIENCE_S = 120.0
BACKLOG_EVERY_S = 1.0
# What a client sends that is no job.
GARBAGE = b'{"input": {"steps": "many"'


class Clients:
    """Sends orders by way of one SDK client. `stop_trying` ends those that wait for a broker that is gone."""

    def __init__(self, client: Client, folder: Path, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._journal: Journal[AnyClientRecord] = Journal(folder / evidence.CLIENT)
        self._habits: set[asyncio.Task[None]] = set()
        self._handles: dict[str, Handle] = {}
        self._stopped = False
        self.submitted = 0
        self.accepted: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """End what clients still do."""
        for task in self._habits:
            task.cancel()
        await asyncio.gather(*self._habits, return_exceptions=True)

    async def send(self, orders: Iterable[Order], rate_per_s: float = math.inf) -> None:
        """Send all of them, in order, at most IN_FLIGHT at once; returns when all are sent.

        They come in bursts, so that a queue forms, at `rate_per_s` on the whole. What their clients do afterwards goes
        on: see `finish`.
        """
        waiting = enumerate(orders)
        began_s = self._clock.monotonic()
        burst = max(1, round(rate_per_s * BURST_EVERY_S)) if rate_per_s < math.inf else 1

        async def work() -> None:
            for number, order in waiting:
                due_s = began_s + number // burst * burst / rate_per_s
                await asyncio.sleep(max(0.0, due_s - self._clock.monotonic()))
                if self._stopped:
                    return
                self.submitted += 1
                await self.submit(order)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(work())

    async def submit(self, order: Order) -> bool:
        """Submit one job until it is accepted or refused for good; whether it is accepted."""
        self._write(Submitting(self._now(), order.job_id, order.model, order.asked, order.ttl_s))
        accepted = await self._until_accepted(order)
        if accepted and order.asked is not None:
            task = asyncio.create_task(self._follow_habit(order))
            self._habits.add(task)
            task.add_done_callback(self._habits.discard)
        return accepted

    async def cancel(self, order: Order) -> str | None:
        """Cancel a job, again if there was no answer; what the client was told."""
        for _ in range(5):
            self._write(Canceling(self._now(), order.job_id))
            try:
                handle = self._handles.get(order.job_id) or self._client.handle(order.model, order.job_id)
                answer = await handle.cancel()
            except HeadraceError as error:
                self._write(NotAccepted(self._now(), order.job_id, f"cancel: {type(error).__name__}"))
                await asyncio.sleep(PAUSE_S)
            else:
                self._write(CancelAnswered(self._now(), order.job_id, answer))
                return answer
        return None

    async def read(self, order: Order, patience_s: float = READ_PATIENCE_S) -> str | None:
        """Wait for a result; its status, or None if it did not come."""
        while not self._stopped:
            try:
                result = await self._client.result(order.model, order.job_id, patience_s)
            except ResultTimeout:
                return None
            except HeadraceError:
                await asyncio.sleep(PAUSE_S)
            else:
                self._write(ResultRead(self._now(), order.job_id, result.status))
                return result.status
        return None

    async def watch_backlog(self, model: str) -> None:
        """Write down the backlog now and then, until canceled."""
        while True:
            await asyncio.sleep(BACKLOG_EVERY_S)
            asked_at_s = self._now()
            try:
                lanes = await self._client.backlog(model)
            except HeadraceError:
                continue
            jobs = sum(lane.waiting + lane.held for lane in lanes)
            if lanes:
                self._write(BacklogRead(self._now(), "", model, jobs, asked_at_s))

    def stop_trying(self) -> None:
        """No new jobs, no more tries."""
        self._stopped = True

    async def finish(self, deadline_s: float) -> None:
        """Let clients do what they still want to do, for a while."""
        if self._habits:
            _, late = await asyncio.wait(self._habits, timeout=deadline_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _until_accepted(self, order: Order) -> bool:
        while True:
            try:
                duplicate = await self._publish(order)
            except HeadraceError as error:
                self._write(NotAccepted(self._now(), order.job_id, type(error).__name__))
                if isinstance(error, JobConflict) or self._stopped:
                    return False
                await asyncio.sleep(PAUSE_S)
            else:
                self._write(Accepted(self._now(), order.job_id, duplicate))
                self.accepted.add(order.job_id)
                return True

    async def _publish(self, order: Order) -> bool:
        """Publish a job; whether it was there already."""
        if order.asked is None:
            connection = self._client.connection
            with connection.errors():
                subject = jobs_subject(TENANT, order.model, order.lane)
                ack = await connection.js.publish(subject, GARBAGE, headers={"Nats-Msg-Id": order.job_id})
            return bool(ack.duplicate)
        fields = msgspec.to_builtins(order.asked)
        handle = await self._client.submit(
            order.model, lane=order.lane, job_id=order.job_id, ttl_s=order.ttl_s, **fields
        )
        if order.cancel_after_s is not None:
            self._handles[order.job_id] = handle
        return False

    async def _follow_habit(self, order: Order) -> None:
        if order.cancel_after_s is not None:
            await asyncio.sleep(order.cancel_after_s)
            await self.cancel(order)
        elif order.again_after_s is not None:
            await asyncio.sleep(order.again_after_s)
            await self._until_accepted(order)
        elif order.other_after_s is not None and order.asked is not None:
            await asyncio.sleep(order.other_after_s)
            other = msgspec.structs.replace(order.asked, seed=order.asked.seed + 1)
            await self._until_accepted(msgspec.structs.replace(order, asked=other))
        elif order.reads:
            await self.read(order)

    def _now(self) -> float:
        return self._clock.monotonic()

    def _write(self, record: AnyClientRecord) -> None:
        self._journal.write(record)
