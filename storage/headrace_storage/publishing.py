"""Publish to a stream and know what came of it.

A publish that times out may have been stored, so every message sent through here must be safe to send twice: it has a
Nats-Msg-Id, or the condition that its subject is still empty.
"""

import asyncio
from enum import IntEnum

import msgspec
import nats.errors
import nats.js.errors

from headrace_contracts.clock import Clock, SystemClock
from headrace_contracts.errors import BrokerForbidden, BrokerUnavailable, MessageTooLarge
from headrace_storage.broker_faults import broker_full, queue_full, why_not_stored
from headrace_storage.connection import Connection
from headrace_storage.refusals import Refused

# A cluster takes 4 to 7 s to choose a new leader; a shorter deadline would report an outage that was none.
DEADLINE_S = 15.0
ATTEMPT_TIMEOUT_S = 3.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0


class ServerError(IntEnum):
    """The JetStream error codes we tell apart."""

    ACCOUNT_RESOURCES_EXCEEDED = 10002
    INSUFFICIENT_RESOURCES = 10023
    MESSAGE_TOO_LARGE = 10054
    WRONG_LAST_SEQUENCE = 10071
    STREAM_FULL = 10077


class WrongLastSequence(Exception):
    """The subject already has a message."""


class PubAck(msgspec.Struct, frozen=True):
    """The server's receipt."""

    sequence: int
    duplicate: bool


async def publish(
    connection: Connection,
    subject: str,
    data: bytes,
    headers: dict[str, str],
    *,
    deadline_s: float = DEADLINE_S,
    clock: Clock | None = None,
) -> PubAck:
    """Publish until the server has stored the message, or refused it.

    Raises:
        QueueFull: the stream is at a limit; `BrokerFull` where it is the broker's or the account's storage.
        MessageTooLarge: no message of that size is taken.
        WrongLastSequence: `headers` set a condition and the subject has a message.
        BrokerForbidden: this role may not publish there.
        BrokerUnavailable: no receipt until the deadline; the message may be stored all the same.
            `BrokerStorageFailing` where the broker answers everything else.
    """
    clock = clock or SystemClock()
    _check_size(connection, data, headers)
    give_up_at = clock.monotonic() + deadline_s
    pause_s = FIRST_PAUSE_S
    while True:
        timed_out = False
        try:
            ack = await connection.js.publish(subject, data, headers=dict(headers), timeout=ATTEMPT_TIMEOUT_S)
        except nats.js.errors.NoStreamResponseError:
            reason = "no stream takes this subject, or its leader is being chosen"
        except nats.js.errors.APIError as error:
            reason = await _reason_to_retry(connection, subject, data, error)
        except Refused as error:
            raise BrokerForbidden(connection.url, error.action, error.subject) from error
        except (TimeoutError, nats.errors.Error, ConnectionError) as error:
            timed_out = isinstance(error, TimeoutError)
            reason = str(error) or type(error).__name__
        else:
            return PubAck(ack.seq, bool(ack.duplicate))
        if clock.monotonic() + pause_s > give_up_at or connection.closed.is_set():
            raise await why_not_stored(connection, subject) if timed_out else BrokerUnavailable(connection.url, reason)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def _reason_to_retry(connection: Connection, subject: str, data: bytes, error: nats.js.errors.APIError) -> str:
    """What to say if retrying does not help; raises where it cannot help."""
    description = error.description or "refused"
    match error.err_code:
        case ServerError.STREAM_FULL:
            raise await queue_full(connection, subject, description) from error
        case ServerError.INSUFFICIENT_RESOURCES | ServerError.ACCOUNT_RESOURCES_EXCEEDED:
            raise await broker_full(connection, subject, description) from error
        case ServerError.MESSAGE_TOO_LARGE:
            raise MessageTooLarge(len(data), 0) from error
        case ServerError.WRONG_LAST_SEQUENCE:
            raise WrongLastSequence(description) from error
        case _ if error.code == 503:
            return description
        case _:
            raise error


def _check_size(connection: Connection, data: bytes, headers: dict[str, str]) -> None:
    """The server closes a connection for good that sends more than its limit, so it must never happen."""
    size_bytes = len(data) + sum(len(key) + len(value) + 4 for key, value in headers.items()) + 16
    if size_bytes > connection.max_payload_bytes:
        raise MessageTooLarge(size_bytes, connection.max_payload_bytes)
