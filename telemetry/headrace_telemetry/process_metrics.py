"""What every process shows of itself: which build it is, whether it has a broker, and what it takes of the machine."""

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class ProcessMetrics(Collector):
    """Registers itself. `connected` is asked when Prometheus asks, in the server's thread.

    Args:
        registry: of the process.
        component: what it is: `worker`, `scaler`.
    """

    def __init__(self, registry: CollectorRegistry, component: str) -> None:
        self.connected: Callable[[], bool] = lambda: False
        """Whether there is a broker at the other end now; set as soon as there is a connection."""
        self._component = component
        registry.register(self)
        ProcessCollector(registry=registry)

    def collect(self) -> Iterator[Metric]:
        """The values of now."""
        build = GaugeMetricFamily("headrace_build_info", "1, and which build it is.", labels=("version", "component"))
        build.add_metric((_version(), self._component), 1)
        yield build
        yield GaugeMetricFamily(
            "headrace_broker_connected", "1 while there is a connection to the broker.", float(self.connected())
        )


def _version() -> str:
    try:
        return version("headrace")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"
