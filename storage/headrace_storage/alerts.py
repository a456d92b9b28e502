"""The ALERTS stream: what the scaler tells operators, pagers and other scalers."""

from enum import StrEnum

import msgspec
import nats.errors

from headrace_contracts.alert import Alert, ScalingDecision, WorkerColdStart
from headrace_contracts.names import Stream, alert_subject
from headrace_storage.connection import REQUEST_TIMEOUT_S, Connection


class AlertKind(StrEnum):
    """The second token of a subject of the stream."""

    BACKLOG = "backlog"
    DECISION = "decision"
    COLD_START = "cold_start"


async def publish_alert(connection: Connection, message: Alert | ScalingDecision | WorkerColdStart) -> None:
    """Store one message; as JSON, for any program reads that.

    Raises:
        BrokerUnavailable: no receipt; it may be stored all the same.
    """
    with connection.errors():
        await connection.js.publish(alert_subject(_kind(message), message.model), msgspec.json.encode(message))


async def last_decision(connection: Connection, model: str) -> ScalingDecision | None:
    """The newest decision on a model; None if there was none within the stream's age.

    Raises:
        BrokerUnavailable: no answer.
    """
    subject = alert_subject(AlertKind.DECISION, model)
    with connection.errors():
        try:
            message = await connection.nc.request(
                f"$JS.API.DIRECT.GET.{Stream.ALERTS}.{subject}", timeout=REQUEST_TIMEOUT_S
            )
        except nats.errors.NoRespondersError:
            return None
    if not message.data:
        return None
    return msgspec.json.decode(message.data, type=ScalingDecision)


def _kind(message: Alert | ScalingDecision | WorkerColdStart) -> AlertKind:
    match message:
        case Alert():
            return AlertKind.BACKLOG
        case ScalingDecision():
            return AlertKind.DECISION
        case WorkerColdStart():
            return AlertKind.COLD_START
