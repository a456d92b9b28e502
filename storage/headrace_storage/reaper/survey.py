"""What there is on the broker: subjects with jobs, models and consumers; three requests however long the queue is."""

from datetime import datetime

import msgspec

from headrace_contracts.model import ModelSpec
from headrace_contracts.names import Stream
from headrace_storage.connection import Connection
from headrace_storage.registry_reader import RegistryReader


class ConsumerState(msgspec.Struct, frozen=True):
    """A consumer of JOBS, as the broker tells it."""

    name: str
    created_at: datetime
    ack_wait_s: float
    delivered: int
    """No message of its subjects with a higher sequence has ever been delivered by it."""
    pending: int
    """Messages that it has never delivered."""


class Survey(msgspec.Struct, frozen=True):
    """A look at everything. What was stored after `last_sequence` is left for the next one."""

    subjects: tuple[str, ...]
    last_sequence: int
    models: dict[str, ModelSpec | None]
    """By name; None for an entry that cannot be read."""
    consumers: dict[str, ConsumerState]


class Surveyor:
    """Takes surveys; reads the registry only when it has changed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._registry = RegistryReader(connection).models

    async def look(self) -> Survey:
        """Take one.

        Raises:
            BrokerUnavailable: no answer.
        """
        with self._connection.errors():
            jobs = (await self._connection.js.stream_info(Stream.JOBS, subjects_filter="jobs.>")).state
        # After the jobs: a model is in the registry before its first job is published.
        models = await self._registry()
        return Survey(tuple(sorted(jobs.subjects or {})), jobs.last_seq, models, await consumers(self._connection))


async def consumers(connection: Connection) -> dict[str, ConsumerState]:
    """All consumers of JOBS, by name."""
    found: dict[str, ConsumerState] = {}
    offset = 0
    while True:
        page = await connection.api(f"CONSUMER.LIST.{Stream.JOBS}", b'{"offset":%d}' % offset)
        listed = page.get("consumers") or []
        for info in listed:
            state = ConsumerState(
                name=info["name"],
                created_at=msgspec.convert(info["created"], datetime),
                ack_wait_s=info["config"].get("ack_wait", 0) / 1e9,
                delivered=info["delivered"]["stream_seq"],
                pending=info["num_pending"],
            )
            found[state.name] = state
        offset += len(listed)
        if not listed or offset >= page["total"]:
            return found
