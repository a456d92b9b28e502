"""One question to the broker that may be denied, or that nobody answers: why there is no answer is an answer too."""

from enum import StrEnum
from typing import Any

import msgspec
import nats.errors

from headrace_storage.connection import Connection
from headrace_storage.refusals import Refused

ASK_TIMEOUT_S = 2.0


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
        message = await connection.nc.request(subject, payload, timeout=ASK_TIMEOUT_S, headers=headers)
    except nats.errors.NoRespondersError:
        return Silence.NOBODY
    except Refused:
        return Silence.DENIED
    except (nats.errors.Error, TimeoutError, ConnectionError):
        return Silence.TIMEOUT
    try:
        answer: dict[str, Any] = msgspec.json.decode(message.data, type=dict)
    except msgspec.DecodeError:
        return {"status": (message.headers or {}).get("Status", "")}
    return answer
