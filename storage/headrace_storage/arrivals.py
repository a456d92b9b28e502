"""Hear at once that a job was stored: the broker says so by itself, with the job's subject and headers, not its body.

Core messages: whoever was not there has missed them. They wake; what there is to do is read from the consumers.
"""

from collections.abc import Callable
from datetime import datetime

import msgspec
from nats.aio.msg import Msg

from headrace_contracts.names import ARRIVALS, Lane
from headrace_storage.connection import Connection


class Arrival(msgspec.Struct, frozen=True):
    """A job was stored."""

    model: str
    lane: Lane
    sequence: int
    stored_at: datetime


async def listen_for_arrivals(connection: Connection, heard: Callable[[Arrival], None]) -> None:
    """Call `heard` for every job that is stored from now on, until the connection ends. It must not raise."""

    async def on_message(message: Msg) -> None:
        _, model, lane = message.subject.split(".")
        headers = message.headers or {}
        if lane in set(Lane) and "Nats-Sequence" in headers:
            stored_at = datetime.fromisoformat(headers["Nats-Time-Stamp"])
            heard(Arrival(model, Lane(lane), int(headers["Nats-Sequence"]), stored_at))

    with connection.errors():
        await connection.nc.subscribe(ARRIVALS, cb=on_message)
