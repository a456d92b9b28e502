"""The lanes of models as their consumers tell them: what waits, what is held, how far they are, what stops them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
import nats.js.errors

from headrace_contracts.names import Lane, Stream, consumer_filter, consumer_name
from headrace_storage.connection import Connection
from headrace_storage.reading import Stored, next_batch


class LaneState(msgspec.Struct, frozen=True):
    """One consumer of JOBS."""

    model: str
    lane: Lane
    waiting: int
    """Jobs that it has never delivered."""
    held: int
    """Jobs that it has delivered and that have not ended: in the hands of a worker, or waiting for another attempt."""
    delivered: int
    """No job of the lane with a higher sequence has ever been delivered."""
    ack_wait_s: float
    """After this long without a word of its worker a job is delivered again."""
    most_held: int
    """Jobs it gives out at once."""
    paused_until: datetime | None
    """It delivers nothing until then; None: it does."""

    @property
    def deliverable(self) -> int:
        """Jobs that the server would give to whoever asks now; those of a paused lane are none."""
        full = 0 < self.most_held <= self.held
        return 0 if full or self.paused_until is not None else self.waiting


async def lanes_of_model(connection: Connection, model: str) -> tuple[LaneState, ...]:
    """The lanes of a model that have a consumer, highest first; none for a model that is not in the registry.

    Raises:
        BrokerUnavailable: no answer.
    """
    found = []
    for lane in Lane:
        try:
            info = await connection.api(f"CONSUMER.INFO.{Stream.JOBS}.{consumer_name(model, lane)}")
        except nats.js.errors.NotFoundError:
            continue
        found.append(_lane_state(info, model, lane))
    return tuple(found)


async def lanes_of_all(connection: Connection) -> dict[str, tuple[LaneState, ...]]:
    """The lanes of every model, in one request for some 80 models. Consumers that are none of ours are left out.

    Raises:
        BrokerUnavailable: no answer.
    """
    found: dict[tuple[str, Lane], LaneState] = {}
    offset = 0
    while True:
        try:
            page = await connection.api(f"CONSUMER.LIST.{Stream.JOBS}", b'{"offset":%d}' % offset)
        except nats.js.errors.NotFoundError:
            return {}
        listed = page.get("consumers") or []
        for info in listed:
            model, _, lane = info["name"].rpartition("-")
            if model and lane in set(Lane):
                found[model, Lane(lane)] = _lane_state(info, model, Lane(lane))
        offset += len(listed)
        if not listed or offset >= page["total"]:
            models = sorted({model for model, _ in found})
            return {model: tuple(found[model, lane] for lane in Lane if (model, lane) in found) for model in models}


async def oldest_waiting(connection: Connection, lane: LaneState) -> Stored | None:
    """The first job of a lane that was never delivered; None if none waits.

    Raises:
        BrokerUnavailable: no answer.
    """
    if not lane.waiting:
        return None
    subject = consumer_filter(lane.model, lane.lane)
    batch = await next_batch(connection, Stream.JOBS, subject, lane.delivered + 1, 1)
    return batch.messages[0] if batch.messages else None


def _lane_state(info: Mapping[str, Any], model: str, lane: Lane) -> LaneState:  # Any: the server's JSON
    config = info["config"]
    # The server keeps the date of a pause that is over.
    until = msgspec.convert(config["pause_until"], datetime) if info.get("paused") else None
    return LaneState(
        model=model,
        lane=lane,
        waiting=info.get("num_pending", 0),
        held=info.get("num_ack_pending", 0),
        delivered=info["delivered"]["stream_seq"],
        ack_wait_s=config.get("ack_wait", 0) / 1e9,
        most_held=config.get("max_ack_pending", 0),
        paused_until=until,
    )
