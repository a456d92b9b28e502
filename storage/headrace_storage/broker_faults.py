"""Why a publish was refused or not answered: asked of the broker afterwards, and put into one of our errors.

A full disk shows itself only as silence: publishes time out while every other request is answered. So after a publish
that timed out, the connection, the stream and JetStream are asked in turn.
"""

import asyncio

import msgspec
import nats.errors

from headrace_contracts.errors import BrokerFull, BrokerStorageFailing, BrokerUnavailable, HeadraceError, QueueFull
from headrace_contracts.fill import Fill, FullLimit
from headrace_contracts.names import Stream
from headrace_storage.connection import Connection

PROBE_TIMEOUT_S = 2.0
# Numbers in an error are a courtesy: they must not keep the caller from it.
NUMBERS_TIMEOUT_S = 1.0

# The server's descriptions; all of them have one code.
_LIMITS = {
    "maximum messages exceeded": FullLimit.MESSAGES,
    "maximum bytes exceeded": FullLimit.BYTES,
    "maximum messages per subject exceeded": FullLimit.MESSAGES_PER_SUBJECT,
}


class _Config(msgspec.Struct):
    max_msgs: int = -1
    max_bytes: int = -1
    max_msgs_per_subject: int = -1


class _State(msgspec.Struct):
    messages: int = 0
    bytes: int = 0
    subjects: dict[str, int] | None = None


class _StreamInfo(msgspec.Struct):
    """The parts we read of an answer to STREAM.INFO."""

    config: _Config | None = None
    state: _State | None = None


class _Answer(msgspec.Struct):
    error: msgspec.Raw | None = None


class _AccountInfo(msgspec.Struct):
    storage: int | None = None


async def queue_full(connection: Connection, subject: str, description: str) -> QueueFull:
    """The error for a stream that refused a message at one of its limits."""
    limit = _LIMITS.get(description, FullLimit.UNKNOWN)
    return QueueFull(subject, description, await _fill(connection, subject, limit))


async def broker_full(connection: Connection, subject: str, description: str) -> BrokerFull:
    """The error for a message that was refused because the broker, or our account, stores no more."""
    answer = await _ask(connection, "INFO", b"", NUMBERS_TIMEOUT_S)
    used = None if answer is None else msgspec.json.decode(answer, type=_AccountInfo).storage
    return BrokerFull(subject, description, used)


async def why_not_stored(connection: Connection, subject: str) -> BrokerUnavailable:
    """The error for a publish that was not answered."""
    # Answered by the server's connection alone.
    if not await _ping(connection):
        return BrokerUnavailable(connection.url, "the connection is lost: publishes and pings are not answered")
    stream = _stream_of(subject)
    # Only a stream's leader answers this, so there is one, and it does not store.
    if stream is not None and await _ask(connection, f"STREAM.INFO.{stream}", b"", PROBE_TIMEOUT_S) is not None:
        return BrokerStorageFailing(connection.url, "publishes time out", stream)
    # A role that may not look at the stream learns less.
    who = "JetStream" if await _ask(connection, "INFO", b"", PROBE_TIMEOUT_S) is not None else "the server"
    return BrokerUnavailable(
        connection.url,
        f"{who} answers, but nobody for {subject}: its stream has no leader or a full disk, or these credentials may "
        "not publish there",
    )


async def _fill(connection: Connection, subject: str, limit: FullLimit) -> Fill | None:
    stream = _stream_of(subject)
    if stream is None:
        return None
    payload = msgspec.json.encode({"subjects_filter": subject})
    answer = await _ask(connection, f"STREAM.INFO.{stream}", payload, NUMBERS_TIMEOUT_S)
    info = _StreamInfo() if answer is None else msgspec.json.decode(answer, type=_StreamInfo)
    if info.config is None or info.state is None:
        return None
    match limit:
        case FullLimit.MESSAGES:
            return Fill(stream, limit, info.state.messages, info.config.max_msgs)
        case FullLimit.BYTES:
            return Fill(stream, limit, info.state.bytes, info.config.max_bytes)
        case FullLimit.MESSAGES_PER_SUBJECT:
            used = (info.state.subjects or {}).get(subject, 0)
            return Fill(stream, limit, used, info.config.max_msgs_per_subject)
        case FullLimit.UNKNOWN:
            return None


def _stream_of(subject: str) -> str | None:
    """The stream of ours that takes a subject."""
    first, *rest = subject.split(".")
    if first == "$KV" and rest:
        return f"KV_{rest[0]}"
    return next((stream.value for stream in Stream if stream.lower() == first), None)


async def _ping(connection: Connection) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await connection.nc.flush(PROBE_TIMEOUT_S)
    except (TimeoutError, nats.errors.Error, ConnectionError):
        return False
    # While it is reconnecting, the client answers a flush by itself.
    return bool(connection.nc.is_connected)


async def _ask(connection: Connection, operation: str, payload: bytes, timeout_s: float) -> bytes | None:
    """The answer to a request of the JetStream API; None without one, for whatever reason, or if it is a refusal."""
    try:
        answer = await connection.request(f"$JS.API.{operation}", payload, timeout_s)
    except HeadraceError:  # silence, or a refusal: either way nothing is known
        return None
    return None if msgspec.json.decode(answer, type=_Answer).error is not None else answer
