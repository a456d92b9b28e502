"""The MODELS bucket: which models there are, and what each takes."""

import msgspec
import nats.js.errors

from headrace_contracts.errors import InvalidSpec, UnknownModel
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import Bucket
from headrace_storage.connection import Connection
from headrace_storage.topology import ensure_consumers


async def add_model(connection: Connection, spec: ModelSpec) -> None:
    """Put a model into the registry, or change it, and create its consumers.

    Raises:
        TopologyDrift: its consumers exist with other settings.
    """
    await ensure_consumers(connection, spec.name)
    with connection.errors():
        bucket = await connection.js.key_value(Bucket.MODELS)
        await bucket.put(spec.name, msgspec.json.encode(spec))


async def remove_model(connection: Connection, name: str) -> None:
    """Take a model out of the registry; its consumers stay until the jobs in them are done."""
    with connection.errors():
        bucket = await connection.js.key_value(Bucket.MODELS)
        await bucket.delete(name)


async def get_model(connection: Connection, name: str) -> ModelSpec:
    """One model.

    Raises:
        UnknownModel: the registry does not have it; the error names those it has.
        InvalidSpec: its entry was written by another version, or by hand.
    """
    with connection.errors():
        try:
            bucket = await connection.js.key_value(Bucket.MODELS)
            entry = await bucket.get(name)
        except (
            nats.js.errors.KeyNotFoundError,
            nats.js.errors.InvalidKeyError,
            nats.js.errors.BucketNotFoundError,
        ) as error:
            raise UnknownModel(name, await model_names(connection)) from error
    return _decode(name, entry.value)


async def model_names(connection: Connection) -> tuple[str, ...]:
    """Names of all models, sorted."""
    with connection.errors():
        try:
            bucket = await connection.js.key_value(Bucket.MODELS)
            return tuple(sorted(await bucket.keys()))
        except (nats.js.errors.NoKeysError, nats.js.errors.BucketNotFoundError):
            return ()


async def list_models(connection: Connection) -> list[ModelSpec]:
    """All models, by name."""
    return [await get_model(connection, name) for name in await model_names(connection)]


def _decode(name: str, value: bytes | None) -> ModelSpec:
    try:
        return msgspec.json.decode(value or b"", type=ModelSpec)
    except msgspec.DecodeError as error:
        raise InvalidSpec(f"registry entry {name}: {error}") from error
