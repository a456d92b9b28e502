"""The whole registry again and again: read anew only when it has changed."""

import nats.js.errors

from headrace_contracts.errors import BrokerUnavailable, InvalidSpec
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import Bucket
from headrace_storage.connection import Connection
from headrace_storage.reading import bucket_values
from headrace_storage.registry import decode_spec


class RegistryReader:
    """All models by name, as they are now."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._models: dict[str, ModelSpec | None] = {}
        self._models_at = -1

    async def models(self) -> dict[str, ModelSpec | None]:
        """Every model, by name; None for an entry that cannot be read. One request where nothing has changed.

        Raises:
            BrokerUnavailable: no answer, or there is no registry on this broker.
        """
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


def _spec_or_none(name: str, value: bytes) -> ModelSpec | None:
    try:
        return decode_spec(name, value)
    except InvalidSpec:
        return None
