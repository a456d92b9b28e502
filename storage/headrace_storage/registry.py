"""The MODELS bucket: which models there are, and what each takes."""

from collections.abc import Callable

import msgspec
import nats.js.errors
from nats.js.kv import KeyValue

from headrace_contracts.errors import InvalidSpec, UnknownModel
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import Bucket
from headrace_storage.buckets import bucket_entries
from headrace_storage.connection import Connection
from headrace_storage.topology import ACK_WAIT_S, ensure_consumers


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
            bucket = await connection.js.key_value(Bucket.MODELS)
            return await bucket.get(name)
        except (
            nats.js.errors.KeyNotFoundError,
            nats.js.errors.InvalidKeyError,
            nats.js.errors.BucketNotFoundError,
        ) as error:
            raise UnknownModel(name, await model_names(connection)) from error


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
