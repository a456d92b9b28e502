"""What there is on the broker: subjects with jobs, models and consumers; three requests however long the queue is."""

from datetime import datetime

import msgspec
import nats.js.errors

from headrace_contracts.errors import BrokerUnavailable, InvalidSpec
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import Bucket, Stream
from headrace_storage.connection import Connection
from headrace_storage.reading import bucket_values
from headrace_storage.registry import decode_spec


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
        self._models: dict[str, ModelSpec | None] = {}
        self._models_at = -1

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

    async def _registry(self) -> dict[str, ModelSpec | None]:
        with self._connection.errors():
            try:
                info = await self._connection.js.stream_info(f"KV_{Bucket.MODELS}")
            except nats.js.errors.NotFoundError as error:
                # Without a registry every job would look like one for an unknown model.
                raise BrokerUnavailable(self._connection.url, f"it has no bucket {Bucket.MODELS}") from error
        if info.state.last_seq != self._models_at:
            values = await bucket_values(self._connection, Bucket.MODELS)
            self._models = {name: _spec_or_none(name, values[name]) for name in sorted(values)}
            self._models_at = info.state.last_seq
        return self._models


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


def _spec_or_none(name: str, value: bytes) -> ModelSpec | None:
    try:
        return decode_spec(name, value)
    except InvalidSpec:
        return None
