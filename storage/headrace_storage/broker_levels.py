"""How full the broker is, and whether it answers: numbers that are read beside the work and never stand in its way."""

import asyncio
from typing import Any

import msgspec

from headrace_contracts.names import BLOB_STREAM, EVERY_STREAM, Stream
from headrace_storage.connection import Connection
from headrace_storage.doctor.asking import Silence, ask
from headrace_storage.doctor.monitoring import look_at_servers
from headrace_storage.doctor.observation import Monitoring

_NOT_FOUND = 404


class StreamLevel(msgspec.Struct, frozen=True):
    """One stream that is there."""

    name: str
    messages: int
    used_bytes: int
    limit_bytes: int | None
    """At which it refuses what comes; None: it has no limit, or drops its oldest there, as it is meant to."""


class BrokerLevels(msgspec.Struct, frozen=True):
    """One look. What these credentials may not see is not in it."""

    healthy: bool
    """JetStream answers, every stream has a leader, and no server that can be asked calls itself unhealthy."""
    streams: tuple[StreamLevel, ...] = ()
    storage_bytes: int | None = None
    """On disk, of what is nearest to its limit: our account, or the fullest server."""
    storage_limit_bytes: int | None = None

    @property
    def dead_letters(self) -> int | None:
        """Messages in DEAD; None if it cannot be seen."""
        return next((stream.messages for stream in self.streams if stream.name == Stream.DEAD), None)


async def broker_levels(
    connection: Connection, monitor_url: str | None, *, jetstream_blobs: bool = True
) -> BrokerLevels:
    """Look at all streams, the account and the servers, in a few seconds however the broker is.

    Args:
        connection: of a role that may ask; a question that is denied leaves its numbers out.
        monitor_url: of the servers' monitoring ports; None: they are asked over the connection.
        jetstream_blobs: files are kept in JetStream's object store.
    """
    names = (*EVERY_STREAM, BLOB_STREAM) if jetstream_blobs else EVERY_STREAM
    account, servers, *streams = await asyncio.gather(
        ask(connection, "$JS.API.INFO"),
        look_at_servers(connection, monitor_url),
        *(ask(connection, f"$JS.API.STREAM.INFO.{name}") for name in names),
    )
    seen = servers if isinstance(servers, Monitoring) else None
    used_bytes, limit_bytes = _fullest(account, seen)
    return BrokerLevels(
        healthy=all(map(_is_well, (account, *streams))) and not (seen and seen.unhealthy),
        streams=tuple(_level(name, answer) for name, answer in zip(names, streams, strict=True) if _is_there(answer)),
        storage_bytes=used_bytes,
        storage_limit_bytes=limit_bytes,
    )


Answer = dict[str, Any] | Silence  # Any: the server's JSON


def _is_there(answer: Answer) -> bool:
    return not isinstance(answer, Silence) and "state" in answer


def _is_well(answer: Answer) -> bool:
    """What may not be seen is taken to be well; so is a stream that is not made yet."""
    if isinstance(answer, Silence):
        return answer is Silence.DENIED
    error = answer.get("error")
    return error is None or error.get("code") == _NOT_FOUND


def _level(name: str, answer: Answer) -> StreamLevel:
    assert not isinstance(answer, Silence)
    config, state = answer["config"], answer["state"]
    refuses = config.get("discard") == "new" and config.get("max_bytes", -1) > 0
    return StreamLevel(name, int(state["messages"]), int(state["bytes"]), config["max_bytes"] if refuses else None)


def _fullest(account: Answer, servers: Monitoring | None) -> tuple[int | None, int | None]:
    """Bytes and limit of whatever is nearest to its limit."""
    pairs = [(servers.storage_bytes, servers.max_storage_bytes)] if servers else []
    if not isinstance(account, Silence) and "error" not in account:
        pairs.append((int(account["storage"]), int(account["limits"]["max_storage"])))
    limited = [(used, limit) for used, limit in pairs if limit > 0]
    return max(limited, key=lambda pair: pair[0] / pair[1], default=(pairs[-1][0], None) if pairs else (None, None))
