"""Reads streams as they are, message by message, without a consumer of its own that could get in the way."""

import asyncio
from datetime import datetime

import msgspec

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerUnavailable
from headrace_loadgen.records import StoredMessage, StreamState
from headrace_storage.connection import REQUEST_TIMEOUT_S, Connection

BATCH_BYTES = 2 << 20
BATCH_MESSAGES = 1000


async def read_batch(
    connection: Connection, clock: Clock, stream: str, subjects: str, from_sequence: int
) -> list[StoredMessage]:
    """The next messages, oldest first; none at the end. The stream must allow direct gets.

    Raises:
        BrokerUnavailable: no answer.
    """
    arrived: asyncio.Queue[StoredMessage | str] = asyncio.Queue()

    async def on_message(message: object) -> None:
        headers: dict[str, str] = getattr(message, "headers", None) or {}
        if "Status" in headers:
            arrived.put_nowait(headers["Status"])
            return
        stored_at = msgspec.convert(headers["Nats-Time-Stamp"], datetime)
        kept = {key: value for key, value in headers.items() if not key.startswith("Nats-") or key == "Nats-Msg-Id"}
        data: bytes = getattr(message, "data", b"")
        arrived.put_nowait(
            StoredMessage(
                clock.monotonic(), int(headers["Nats-Sequence"]), headers["Nats-Subject"], kept, data, stored_at
            )
        )

    request = {"next_by_subj": subjects, "seq": from_sequence, "batch": BATCH_MESSAGES, "max_bytes": BATCH_BYTES}
    inbox = connection.nc.new_inbox()
    found: list[StoredMessage] = []
    with connection.errors():
        subscription = await connection.nc.subscribe(inbox, cb=on_message)
        try:
            await connection.nc.publish(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request), reply=inbox)
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                while not isinstance(item := await arrived.get(), str):
                    found.append(item)
        finally:
            await subscription.unsubscribe()
    if item not in ("204", "404"):
        raise BrokerUnavailable(connection.url, f"it answered {item} to a batched get of {stream}")
    return found


async def read_all(connection: Connection, clock: Clock, stream: str, subjects: str) -> list[StoredMessage]:
    """Every message of a stream on some subjects.

    Raises:
        BrokerUnavailable: no answer.
    """
    found: list[StoredMessage] = []
    while batch := await read_batch(connection, clock, stream, subjects, found[-1].sequence + 1 if found else 1):
        found += batch
    return found


async def stream_state(connection: Connection, stream: str) -> StreamState:
    """The server's own counters.

    Raises:
        BrokerUnavailable: no answer.
    """
    state = (await connection.api(f"STREAM.INFO.{stream}"))["state"]
    return StreamState(state["messages"], state["first_seq"], state["last_seq"], state.get("num_deleted", 0))


async def leader_of(connection: Connection, stream: str) -> str:
    """Name of the server that leads a stream; empty while one is being chosen.

    Raises:
        BrokerUnavailable: no answer.
    """
    return str((await connection.api(f"STREAM.INFO.{stream}")).get("cluster", {}).get("leader", ""))
