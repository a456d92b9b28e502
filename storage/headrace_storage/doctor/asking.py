"""One question to the broker that may be denied: the server answers a denied request with silence.

Beside the silence it sends an error that the client hears later, and that names the subject.
"""

import asyncio
from enum import StrEnum
from typing import Any

import msgspec
import nats.errors
from nats.aio.msg import Msg

from headrace_contracts.errors import BrokerUnavailable, HeadraceError
from headrace_storage.connection import Connection

ASK_TIMEOUT_S = 2.0
LOOK_EVERY_S = 0.05


class Silence(StrEnum):
    """Why there is no answer."""

    NOBODY = "nobody answers"
    DENIED = "these credentials may not ask"
    TIMEOUT = "no answer in time"


async def ask(
    connection: Connection, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None
) -> dict[str, Any] | Silence:  # Any: the server's JSON
    """The answer, an error of the server's included, or why there is none."""
    try:
        message = await _request(connection, subject, payload, headers)
    except nats.errors.NoRespondersError:
        return Silence.NOBODY
    except (nats.errors.Error, TimeoutError, ConnectionError):
        return Silence.DENIED if _was_denied(connection, subject) else Silence.TIMEOUT
    except BrokerUnavailable:
        return Silence.TIMEOUT
    except HeadraceError:
        return Silence.DENIED
    try:
        answer: dict[str, Any] = msgspec.json.decode(message.data, type=dict)
    except msgspec.DecodeError:
        return {"status": (message.headers or {}).get("Status", "")}
    return answer


async def _request(connection: Connection, subject: str, payload: bytes, headers: dict[str, str] | None) -> Msg:
    """The answer; TimeoutError as soon as the server has said that we may not ask."""
    asking = asyncio.create_task(connection.nc.request(subject, payload, timeout=ASK_TIMEOUT_S, headers=headers))
    try:
        while not asking.done():
            await asyncio.wait({asking}, timeout=LOOK_EVERY_S)
            if not asking.done() and _was_denied(connection, subject):
                raise TimeoutError
        return asking.result()
    finally:
        asking.cancel()


def _was_denied(connection: Connection, subject: str) -> bool:
    """Whether the last error is about this subject. A question asked beside ours may have had a later one."""
    said = connection.last_error.lower()
    return "permissions violation" in said and subject.lower() in said
