"""Specs of models, kept for a few seconds: whoever submits a thousand jobs asks the registry once."""

from headrace_contracts.clock import Clock
from headrace_contracts.model import ModelSpec
from headrace_storage.connection import Connection
from headrace_storage.registry import get_model

# A changed limit is seen this late; until then the worker refuses what we let through.
FRESH_S = 5.0


class SpecCache:
    """Model specs by name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._specs: dict[str, tuple[float, ModelSpec]] = {}

    async def get(self, connection: Connection, name: str) -> ModelSpec:
        """The spec of a model.

        Raises:
            UnknownModel: no such model. Not remembered: it may be added at any moment.
        """
        read_at, spec = self._specs.get(name, (0.0, None))
        if spec is None or self._clock.monotonic() - read_at > FRESH_S:
            spec = await get_model(connection, name)
            self._specs[name] = (self._clock.monotonic(), spec)
        return spec
