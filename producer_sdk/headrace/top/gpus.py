"""What the GPUs of this machine do: asked of NVIDIA's library, where it and a driver are there."""

from types import ModuleType

from headrace.top.view import GpuUse


def gpu_use() -> tuple[GpuUse, ...]:
    """Every GPU of this machine; none where NVML or a driver is missing, or a GPU was lost."""
    try:
        import pynvml  # comes with the extras `worker` and `scaler`
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_use(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _use(nvml: ModuleType, index: int) -> GpuUse:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except nvml.NVMLError:  # a GPU that is shared in parts does not say
        busy = None
    return GpuUse(index, busy, int(memory.used), int(memory.total))
