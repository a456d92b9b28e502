"""Hear at once that a job was stored: the broker says so by itself, with the job's subject and headers, not its body.

Core messages: whoever was not there has missed them. They wake; what there is to do is read from the consumers.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec
import nats.errors
from nats.aio.msg import Msg

from headrace_contracts.names import ARRIVALS, Lane
from headrace_storage.connection import Connection


class Arrival(msgspec.Struct, frozen=True):
    """A job was stored."""

    model: str
    lane: Lane
    sequence: int
    stored_at: datetime


@asynccontextmanager
async def hearing_arrivals(connection: Connection, heard: Callable[[Arrival], None]) -> AsyncIterator[None]:
    """Inside, `heard` is called for every job that is stored; it must not raise.

    Raises:
        BrokerUnavailable: no connection.
    """

    async def on_message(message: Msg) -> None:
        _, model, lane = message.subject.split(".")
        headers = message.headers or {}
        if lane in set(Lane) and "Nats-Sequence" in headers:
            stored_at = datetime.fromisoformat(headers["Nats-Time-Stamp"])
            heard(Arrival(model, Lane(lane), int(headers["Nats-Sequence"]), stored_at))

    with connection.errors():
        subscription = await connection.nc.subscribe(ARRIVALS, cb=on_message)
        # So that the server has it before whatever is looked at next.
        await connection.nc.flush()
    try:
        yield
    finally:
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()
