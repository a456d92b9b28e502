"""Reads streams as they are, message by message, without a consumer of its own that could get in the way."""

from headrace_contracts.clock import Clock
from headrace_contracts.names import Header
from headrace_loadgen.records import StoredMessage, StreamState
from headrace_storage.connection import Connection
from headrace_storage.reading import next_batch


async def read_batch(
    connection: Connection, clock: Clock, stream: str, subjects: str, from_sequence: int
) -> list[StoredMessage]:
    """The next messages, oldest first; none at the end. The stream must allow direct gets.

    Raises:
        BrokerUnavailable: no answer.
    """
    batch = await next_batch(connection, stream, subjects, from_sequence)
    now_s = clock.monotonic()
    return [
        StoredMessage(now_s, found.sequence, found.subject, _sent(found.headers), found.data, found.stored_at)
        for found in batch.messages
    ]


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


def _sent(headers: dict[str, str]) -> dict[str, str]:
    """Without what the server adds."""
    return {key: value for key, value in headers.items() if key == Header.JOB_ID or not key.startswith("Nats-")}
