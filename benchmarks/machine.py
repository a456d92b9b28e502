"""What a measurement was made on: hardware and versions, and never a name or a path of the machine."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import msgspec
import psutil
import pynvml

from benchmarks.numbers import percentile
from headrace_local.nats_server import find_nats_server

PACKAGES = ("nats-py", "msgspec", "torch", "transformers", "diffusers", "faster-whisper", "ctranslate2")
FSYNCS = 100


class Machine(msgspec.Struct, frozen=True):
    """The hardware that matters to the figures."""

    cpu: str
    cores: int
    """Those this process may use."""
    memory_gib: float
    gpu: str | None
    fsync_p50_ms: float
    """4 KiB written and synced where the broker's store is: with `sync always`, the floor of every stored message."""
    load_1m: float
    """Load average before the first measurement: well below 1, or the figures are not of this machine alone."""


def describe_machine(store: Path) -> Machine:
    """This machine; `store` is an existing folder on the disk that the broker will use."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(psutil.virtual_memory().total / (1 << 30), 1),
        gpu=_gpu_model(),
        fsync_p50_ms=round(_fsync_p50_s(store) * 1e3, 3),
        load_1m=round(os.getloadavg()[0], 2),
    )


def describe_versions() -> dict[str, str]:
    """Program or package to version."""
    server = subprocess.run([find_nats_server(), "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "python": platform.python_version(),
        "nats-server": server.split()[-1].removeprefix("v"),
        **{package: version(package) for package in PACKAGES},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _gpu_model() -> str | None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)))
    finally:
        pynvml.nvmlShutdown()


def _fsync_p50_s(store: Path) -> float:
    path = store / "fsync-probe"
    took_s = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            began = perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took_s.append(perf_counter() - began)
    path.unlink()
    return percentile(took_s, 0.5)
