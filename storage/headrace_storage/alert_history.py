"""What the scaler told lately: the newest decision of each model, alerts as they came, cold starts, the next decision.

Messages that are none of those we know are passed over: a newer scaler may say more.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import nats.errors
from nats.aio.msg import Msg

from headrace_contracts.alert import Alert, ScalingDecision, WorkerColdStart
from headrace_contracts.names import Stream, alert_subject
from headrace_storage.alerts import AlertKind
from headrace_storage.connection import Connection
from headrace_storage.reading import last_of, messages_from, next_batch

T = TypeVar("T")


class AlertsSince(msgspec.Struct, frozen=True):
    """Alerts that began or ended, oldest first, and the sequence from which to go on."""

    alerts: tuple[Alert, ...]
    next_sequence: int


async def decisions_of(connection: Connection, models: Sequence[str]) -> dict[str, ScalingDecision]:
    """The newest decision on each of these models that has one, in one request for a thousand.

    Raises:
        BrokerUnavailable: no answer.
    """
    subjects = [alert_subject(AlertKind.DECISION, model) for model in models]
    found = {}
    async for message in last_of(connection, Stream.ALERTS, subjects):
        decision = _decoded(message.data, ScalingDecision)
        if decision is not None:
            found[message.subject.rpartition(".")[2]] = decision
    return found


async def cold_starts_of(connection: Connection, model: str) -> tuple[WorkerColdStart, ...]:
    """Every cold start of a model that the stream still has (a day), oldest first.

    Raises:
        BrokerUnavailable: no answer.
    """
    messages = messages_from(connection, Stream.ALERTS, alert_subject(AlertKind.COLD_START, model))
    decoded = [_decoded(message.data, WorkerColdStart) async for message in messages]
    return tuple(start for start in decoded if start is not None)


async def alerts_since(connection: Connection, from_sequence: int = 1) -> AlertsSince:
    """Alerts of all models from a sequence of the stream on.

    Raises:
        BrokerUnavailable: no answer.
    """
    alerts: list[Alert] = []
    next_sequence = sequence = from_sequence
    while sequence:
        batch = await next_batch(connection, Stream.ALERTS, f"alerts.{AlertKind.BACKLOG}.*", sequence)
        decoded = [_decoded(message.data, Alert) for message in batch.messages]
        alerts += [alert for alert in decoded if alert is not None]
        if batch.messages:
            next_sequence = batch.messages[-1].sequence + 1
        sequence = batch.next_sequence
    return AlertsSince(tuple(alerts), next_sequence)


@asynccontextmanager
async def hearing_decisions(connection: Connection, model: str) -> AsyncIterator[asyncio.Queue[ScalingDecision]]:
    """A queue of the decisions on a model that are published from now on.

    Raises:
        BrokerUnavailable: no connection.
    """
    heard: asyncio.Queue[ScalingDecision] = asyncio.Queue()

    async def on_message(message: Msg) -> None:
        decision = _decoded(message.data, ScalingDecision)
        if decision is not None:
            heard.put_nowait(decision)

    with connection.errors():
        subscription = await connection.nc.subscribe(alert_subject(AlertKind.DECISION, model), cb=on_message)
        # So that the server has it before whatever is published next.
        await connection.nc.flush()
    try:
        yield heard
    finally:
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()


def _decoded(data: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError:
        return None
