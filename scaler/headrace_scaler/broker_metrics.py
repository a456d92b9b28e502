"""What Prometheus may know of the broker, as every scaler sees it, whether it leads or not."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace_contracts.settings import Settings
from headrace_storage.broker_levels import BrokerLevels, broker_levels
from headrace_storage.connection import Connection

LOOK_EVERY_S = 15.0

# Without a value where it cannot be seen.
_GAUGES: Final[Mapping[str, str]] = {
    "headrace_broker_healthy": "1 while JetStream answers, every stream has a leader and no server is unhealthy.",
    "headrace_broker_storage_bytes": "Disk that JetStream uses: of our account or of the fullest server.",
    "headrace_broker_storage_limit_bytes": "Disk that it may use there.",
    "headrace_dead_letters": "Jobs that were given up and are kept to be looked at.",
}
_OF_STREAMS: Final[Mapping[str, str]] = {
    "headrace_stream_bytes": "Bytes that a stream holds.",
    "headrace_stream_limit_bytes": "Bytes at which a stream refuses; absent where it drops its oldest instead.",
}


class BrokerMetrics(Collector):
    """Registers itself. It shows the last look, and nothing before the first."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._levels: BrokerLevels | None = None
        registry.register(self)

    def seen(self, levels: BrokerLevels) -> None:
        """Take over what was seen."""
        self._levels = levels

    async def keep(self, connection: Connection, settings: Settings) -> NoReturn:
        """Look again and again, until canceled: a broker that does not answer is not healthy."""
        while True:
            monitor_url, jetstream_blobs = settings.nats.monitor_url, settings.s3 is None
            self.seen(await broker_levels(connection, monitor_url, jetstream_blobs=jetstream_blobs))
            await asyncio.sleep(LOOK_EVERY_S)

    def collect(self) -> Iterator[Metric]:
        """Asked by Prometheus, in the server's thread: a look is replaced as a whole, never changed."""
        levels = self._levels
        values = {} if levels is None else _values(levels)
        for name, meaning in _GAUGES.items():
            yield GaugeMetricFamily(name, meaning, value=values.get(name))
        used, limit = (GaugeMetricFamily(name, meaning, labels=("stream",)) for name, meaning in _OF_STREAMS.items())
        for stream in () if levels is None else levels.streams:
            used.add_metric((stream.name,), stream.used_bytes)
            if stream.limit_bytes is not None:
                limit.add_metric((stream.name,), stream.limit_bytes)
        yield from (used, limit)


def _values(levels: BrokerLevels) -> dict[str, float | None]:
    return {
        "headrace_broker_healthy": levels.healthy,
        "headrace_broker_storage_bytes": levels.storage_bytes,
        "headrace_broker_storage_limit_bytes": levels.storage_limit_bytes,
        "headrace_dead_letters": levels.dead_letters,
    }
