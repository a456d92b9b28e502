"""The GPUs that this process may use, asked of NVIDIA's driver when Prometheus asks.

A driver that a broken GPU holds up may never answer: it is asked in a thread that a scrape does not wait long for, and
that nothing waits for at the end. Without a driver, or without a GPU, there are no rows.
"""

from collections.abc import Callable, Iterator
from threading import Lock, Thread
from typing import Any

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# An answer takes milliseconds. Prometheus gives up on all of a worker's metrics after its own deadline.
ANSWER_DEADLINE_S = 1.0


class GpuUse(msgspec.Struct, frozen=True):
    """One GPU now. Bytes are of device memory, of all programs together, with what the driver keeps for itself."""

    name: str
    """Its UUID, which is the same for every worker on it and after every restart."""
    utilization: float
    """Share of the time, from 0 to 1, in which something ran on it lately."""
    used_bytes: int
    total_bytes: int


class GpuMetrics(Collector):
    """Utilization and memory of each GPU.

    Args:
        visible: CUDA_VISIBLE_DEVICES of this process; None: every GPU.
        read: asks the driver; it may block for ever, and must not raise.
    """

    def __init__(self, visible: str | None, read: "Callable[[str | None], tuple[GpuUse, ...]] | None" = None) -> None:
        self._visible = visible
        self._read = read or NvmlReader().read
        self._asking = Lock()
        self._thread: Thread | None = None

    def collect(self) -> Iterator[Metric]:
        """The values of now; none of a driver that does not answer."""
        found = self._ask()
        for name, meaning, values in (
            (
                "utilization_ratio",
                "Share of the time in which something ran on the GPU.",
                [gpu.utilization for gpu in found],
            ),
            ("memory_used_bytes", "Device memory that is taken, by all programs.", [gpu.used_bytes for gpu in found]),
            ("memory_total_bytes", "Device memory.", [gpu.total_bytes for gpu in found]),
        ):
            family = GaugeMetricFamily(f"headrace_gpu_{name}", meaning, labels=("gpu",))
            for gpu, value in zip(found, values, strict=True):
                family.add_metric((gpu.name,), value)
            yield family

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not ask the driver."""
        return iter(())

    def _ask(self) -> tuple[GpuUse, ...]:
        # Without any GPU the driver is not even loaded.
        if self._visible is not None and not self._visible.strip():
            return ()
        answer: list[tuple[GpuUse, ...]] = []
        with self._asking:
            # One that hangs is not asked again before it has answered: each would be a thread more.
            if self._thread is not None and self._thread.is_alive():
                return ()
            self._thread = Thread(target=lambda: answer.append(self._read(self._visible)), name="gpus", daemon=True)
            self._thread.start()
            self._thread.join(ANSWER_DEADLINE_S)
        return answer[0] if answer else ()


class NvmlReader:
    """Asks through `pynvml`, which is imported when it is first needed. For one thread at a time."""

    def __init__(self) -> None:
        self._opened = False

    def read(self, visible: str | None) -> tuple[GpuUse, ...]:
        """Every GPU that CUDA_VISIBLE_DEVICES leaves and that answers."""
        try:
            import pynvml
        except ImportError:
            return ()
        try:
            if not self._opened:
                pynvml.nvmlInit()
                self._opened = True
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            uuids = [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
            return tuple(_use(pynvml, handles[index], uuids[index]) for index in visible_gpus(uuids, visible))
        except pynvml.NVMLError:
            self._opened = False  # the driver may have been replaced: it is opened anew at the next scrape
            return ()


def visible_gpus(uuids: list[str], visible: str | None) -> list[int]:
    """Indexes of the GPUs that CUDA_VISIBLE_DEVICES leaves; as for CUDA, what follows a wrong entry is left out."""
    if visible is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for entry in (part.strip() for part in visible.split(",")):
        # A UUID may be shortened as long as it is clear.
        named = [
            index
            for index, uuid in enumerate(uuids)
            if entry == str(index) or (entry[:4] == "GPU-" and uuid.startswith(entry))
        ]
        if len(named) != 1 or named[0] in chosen:
            break
        chosen += named
    return chosen


def _use(nvml: Any, handle: Any, uuid: str) -> GpuUse:  # noqa: ANN401 - a module without types
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        utilization = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except nvml.NVMLError_NotSupported:  # a GPU that is split has none of its own
        utilization = float("nan")
    return GpuUse(uuid, utilization, memory.used, memory.total)
