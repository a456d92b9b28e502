"""The MODELS bucket: which models there are, and what each takes."""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import nats.errors
import nats.js.errors
from nats.js.kv import KeyValue

from headrace_contracts.errors import InvalidSpec, UnknownModel
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import Bucket
from headrace_storage.buckets import bucket_entries
from headrace_storage.connection import CHOOSING_A_LEADER, Connection
from headrace_storage.topology import ACK_WAIT_S, ensure_consumers

# As for a publish: a cluster takes 4 to 7 s to choose a new leader.
DEADLINE_S = 15.0
ATTEMPT_TIMEOUT_S = 3.0
PAUSE_S = 0.2


async def add_model(connection: Connection, spec: ModelSpec, ack_wait_s: float = ACK_WAIT_S) -> None:
    """Put a model into the registry, or change it, and create its consumers.

    Args:
        connection: the broker.
        spec: the model.
        ack_wait_s: lease on one job; a worker that dies is noticed after it.

    Raises:
        TopologyDrift: its consumers exist with other settings.
    """
    await ensure_consumers(connection, spec.name, ack_wait_s)
    with connection.errors():
        bucket = await connection.js.key_value(Bucket.MODELS)
        await bucket.put(spec.name, msgspec.json.encode(spec))


async def update_model(
    connection: Connection, name: str, change: Callable[[ModelSpec], ModelSpec]
) -> tuple[ModelSpec, ModelSpec]:
    """Change a model's entry by compare-and-set, so that no other operator's change is lost.

    Args:
        connection: the broker.
        name: of the model.
        change: makes the new spec of the present one; called again on the fresh entry if another writer was first.
            What it raises ends the update, and nothing is written.

    Returns:
        The spec it was called with last, and what that became. Equal ones are not written.

    Raises:
        UnknownModel: the registry does not have it, or it was removed meanwhile.
        InvalidSpec: its entry was written by another version, or by hand.
        BrokerUnavailable: no answer; the change may be stored all the same.
    """
    while True:
        entry = await _entry(connection, name)
        before = decode_spec(name, entry.value)
        after = change(before)
        if after == before:
            return before, after
        with connection.errors():
            bucket = await connection.js.key_value(Bucket.MODELS)
            try:
                await bucket.update(name, msgspec.json.encode(after), entry.revision)
            except nats.js.errors.KeyWrongLastSequenceError:
                continue
        return before, after


async def remove_model(connection: Connection, name: str) -> None:
    """Take a model out of the registry: jobs that still wait for it will end as `unknown_model`."""
    with connection.errors():
        bucket = await connection.js.key_value(Bucket.MODELS)
        await bucket.delete(name)


async def get_model(connection: Connection, name: str) -> ModelSpec:
    """One model.

    Raises:
        UnknownModel: the registry does not have it; the error names those it has.
        InvalidSpec: its entry was written by another version, or by hand.
    """
    return decode_spec(name, (await _entry(connection, name)).value)


async def _entry(connection: Connection, name: str) -> KeyValue.Entry:
    with connection.errors():
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await _first_answer(connection, name)
        except (
            nats.js.errors.KeyNotFoundError,
            nats.js.errors.InvalidKeyError,
            nats.js.errors.BucketNotFoundError,
        ) as error:
            raise UnknownModel(name, await model_names(connection)) from error


async def _first_answer(connection: Connection, name: str) -> KeyValue.Entry:
    """An entry as the first broker that answers has it; asks until one does.

    The client's `key_value` would ask the bucket's leader whether there is a bucket, and nobody answers that while a
    leader is chosen. To read, any broker will do; but one that dies takes a question along, and one that just got its
    copy is not asked yet.
    """
    bucket = KeyValue(Bucket.MODELS, f"KV_{Bucket.MODELS}", f"$KV.{Bucket.MODELS}.", connection.js, direct=True)
    while True:
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                return await bucket.get(name)
        except nats.errors.NoRespondersError:
            await _check_bucket(connection)
            await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            continue


async def _check_bucket(connection: Connection) -> None:
    """Raise where the broker says that there is no such bucket; silence says nothing, and no leader neither."""
    try:
        with contextlib.suppress(TimeoutError):
            await connection.js.key_value(Bucket.MODELS)
    except nats.js.errors.APIError as error:
        if error.err_code not in CHOOSING_A_LEADER:
            raise


async def model_names(connection: Connection) -> tuple[str, ...]:
    """Names of all models, sorted."""
    return tuple(name for name, _ in await bucket_entries(connection, Bucket.MODELS))


async def list_models(connection: Connection) -> list[ModelSpec]:
    """All models, by name.

    Raises:
        InvalidSpec: an entry was written by another version, or by hand.
    """
    return [decode_spec(name, value) for name, value in await bucket_entries(connection, Bucket.MODELS)]


def decode_spec(name: str, value: bytes | None) -> ModelSpec:
    """A model as its entry has it.

    Raises:
        InvalidSpec: it was written by another version, or by hand.
    """
    try:
        return msgspec.json.decode(value or b"", type=ModelSpec)
    except msgspec.DecodeError as error:
        raise InvalidSpec(f"registry entry {name}: {error}") from error
