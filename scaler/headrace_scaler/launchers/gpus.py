"""The GPUs of this machine and their memory, as NVIDIA's management library (NVML) tells.

Every call may block for long, since a broken GPU can hold up the driver: `GpuWatch` calls them in a thread.
"""

import contextlib
from typing import Any, Protocol

import msgspec

from headrace_contracts.errors import HeadraceError


class GpusUnavailable(HeadraceError):
    """No GPU of this machine can be seen; the message says why."""


class GpuFault(HeadraceError):
    """A GPU cannot be used now; the message says why."""


class Gpu(msgspec.Struct, frozen=True):
    """One GPU. The same one has the same `uuid` for good; after a fault others may have moved up in `index`."""

    index: int
    uuid: str
    """As CUDA_VISIBLE_DEVICES takes it; empty if it could not be asked."""

    @property
    def key(self) -> str:
        """What it is known by."""
        return self.uuid or f"index {self.index}"


class GpuMemory(msgspec.Struct, frozen=True):
    """Device memory for programs: without what the driver keeps for itself."""

    size_bytes: int
    free_bytes: int


class Gpus(Protocol):
    """What slots are made of."""

    def find(self) -> tuple[Gpu, ...]:
        """All GPUs, asking the driver anew: one that was reset is back after it.

        Raises:
            GpusUnavailable: there is no driver, or it does not work.
        """
        ...

    def memory(self, gpu: Gpu) -> GpuMemory:
        """Its memory, if it can be used.

        Raises:
            GpuFault: it was lost, its memory has a fault, or it is set up in a way that we cannot use.
        """
        ...


class NvmlGpus:
    """Through `pynvml`, which is imported when it is first asked."""

    def __init__(self) -> None:
        self._opened = False

    def find(self) -> tuple[Gpu, ...]:
        """All GPUs; see `Gpus`."""
        try:
            import pynvml
        except ImportError as error:
            raise GpusUnavailable("the package nvidia-ml-py is missing: `pip install 'headrace[scaler]'`") from error
        if self._opened:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()
            self._opened = False
        try:
            pynvml.nvmlInit()
            self._opened = True
            return tuple(_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
        except pynvml.NVMLError as error:
            raise GpusUnavailable(f"NVIDIA's driver cannot be asked: {error}") from error

    def memory(self, gpu: Gpu) -> GpuMemory:
        """Its memory; see `Gpus`."""
        import pynvml

        try:
            handle = (
                pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid) if gpu.uuid else pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
            )
            if fault := _fault(pynvml, handle):
                raise GpuFault(fault)
            return _memory(pynvml, handle)
        except pynvml.NVMLError as error:
            raise GpuFault(f"NVIDIA's driver says: {error}") from error


def _gpu(nvml: Any, index: int) -> Gpu:  # noqa: ANN401 - a module without types
    try:
        return Gpu(index, nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index)))
    except nvml.NVMLError:
        return Gpu(index, "")


def _memory(nvml: Any, handle: Any) -> GpuMemory:  # noqa: ANN401 - a module without types
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NotSupported):  # drivers before 510
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return GpuMemory(memory.total, memory.free)
    return GpuMemory(memory.total - memory.reserved, memory.free)


def _fault(nvml: Any, handle: Any) -> str:  # noqa: ANN401 - a module without types
    """Why the GPU cannot be used although it answers; empty if it can. What it does not know is no fault."""
    with contextlib.suppress(nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        if nvml.nvmlDeviceGetMigMode(handle)[0]:
            return "it is split by MIG, which is not supported: switch MIG off, or leave it out of CUDA_VISIBLE_DEVICES"
    with contextlib.suppress(nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        _, _, pending, failed = nvml.nvmlDeviceGetRemappedRows(handle)
        if failed:
            return "a fault of its memory (ECC) could not be mended: it has to be replaced"
        if pending:
            return "its memory had a fault (ECC): it has to be reset"
    with contextlib.suppress(nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        if nvml.nvmlDeviceGetRetiredPagesPendingStatus(handle):
            return "its memory had a fault (ECC): it has to be reset"
    return ""
