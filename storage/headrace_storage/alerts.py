"""The ALERTS stream: what the scaler tells operators, pagers and other scalers."""

from datetime import datetime
from enum import StrEnum

import msgspec
import nats.errors
import nats.js.errors

from headrace_contracts.alert import Alert, AlertName, ScalingDecision, WorkerColdStart
from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.names import Stream, alert_subject, alert_subjects
from headrace_storage.connection import REQUEST_TIMEOUT_S, Connection
from headrace_storage.publishing import ServerError, WrongLastSequence
from headrace_storage.reading import last_of, subject_counts

# What is not taken is told at a later look; a longer wait would hold up whoever decides meanwhile.
TIMEOUT_S = 2.0


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
        subject = alert_subject(_kind(message), message.model)
        await connection.js.publish(subject, msgspec.json.encode(message), timeout=TIMEOUT_S)


class Told(msgspec.Struct, frozen=True):
    """What the stream says of a model's alerts: its last message."""

    sequence: int = 0
    """Of that message; 0: there is none."""
    firing: dict[AlertName, datetime] = {}
    """Since when they fire."""
    at: datetime | None = None


async def alerts_told(connection: Connection) -> dict[str, Told]:
    """What was told last of every model of which there is a message.

    A replica may answer that has not seen the newest ones: `tell_alert` then refuses what is built on it.

    Raises:
        BrokerUnavailable: no answer.
    """
    subjects = await subject_counts(connection, Stream.ALERTS, alert_subjects(AlertKind.BACKLOG))
    told = {}
    async for message in last_of(connection, Stream.ALERTS, sorted(subjects)):
        told[message.subject.split(".")[2]] = _read(message.sequence, message.data)
    return told


async def alert_told(connection: Connection, model: str) -> Told:
    """What was told last of one model, asked of the stream's leader.

    Raises:
        BrokerUnavailable: no answer.
    """
    subject = alert_subject(AlertKind.BACKLOG, model)
    with connection.errors():
        try:
            message = await connection.js.get_last_msg(Stream.ALERTS, subject)
        except nats.js.errors.NotFoundError:
            return Told()
    assert message.seq is not None
    return _read(message.seq, message.data or b"")


async def tell_alert(connection: Connection, alert: Alert, after: int) -> int:
    """Store an alert if the last message of its model is the one with sequence `after`; the sequence it has then.

    So two scalers, or one that missed its receipt, never tell the same twice.

    Raises:
        WrongLastSequence: another message is the last one.
        BrokerUnavailable: no receipt; it may be stored all the same.
    """
    conditions = {"Nats-Expected-Last-Subject-Sequence": str(after)}
    subject = alert_subject(AlertKind.BACKLOG, alert.model)
    with connection.errors():
        try:
            receipt = await connection.js.publish(
                subject, msgspec.json.encode(alert), headers=conditions, timeout=TIMEOUT_S
            )
        except nats.js.errors.NoStreamResponseError as error:
            raise BrokerUnavailable(connection.url, f"no stream takes {subject}") from error
        except nats.js.errors.APIError as error:
            if error.err_code == ServerError.WRONG_LAST_SEQUENCE:
                raise WrongLastSequence(str(error.description)) from error
            # A full disk, a cluster without a leader: it goes by.
            raise BrokerUnavailable(connection.url, str(error.description)) from error
    return int(receipt.seq)


def _read(sequence: int, data: bytes) -> Told:
    try:
        alert = msgspec.json.decode(data, type=Alert)
    except msgspec.DecodeError:  # written by hand: it says of no alert that it fires
        return Told(sequence)
    return Told(sequence, alert.firing, alert.at)


async def last_decision(connection: Connection, model: str) -> ScalingDecision | None:
    """The newest decision on a model; None if there was none within the stream's age.

    Raises:
        BrokerUnavailable: no answer.
    """
    data = await _last(connection, AlertKind.DECISION, model)
    return None if data is None else msgspec.json.decode(data, type=ScalingDecision)


async def last_cold_start(connection: Connection, model: str) -> WorkerColdStart | None:
    """The newest cold start of a model that a scaler told of; None if there was none within the stream's age.

    Raises:
        BrokerUnavailable: no answer.
    """
    data = await _last(connection, AlertKind.COLD_START, model)
    return None if data is None else msgspec.json.decode(data, type=WorkerColdStart)


async def _last(connection: Connection, kind: AlertKind, model: str) -> bytes | None:
    subject = alert_subject(kind, model)
    with connection.errors():
        try:
            message = await connection.nc.request(
                f"$JS.API.DIRECT.GET.{Stream.ALERTS}.{subject}", timeout=REQUEST_TIMEOUT_S
            )
        except nats.errors.NoRespondersError:
            return None
    return bytes(message.data) or None


def _kind(message: Alert | ScalingDecision | WorkerColdStart) -> AlertKind:
    match message:
        case Alert():
            return AlertKind.BACKLOG
        case ScalingDecision():
            return AlertKind.DECISION
        case WorkerColdStart():
            return AlertKind.COLD_START
