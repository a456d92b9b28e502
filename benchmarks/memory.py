"""Peak memory of a worker's processes, from the kernel's own high-water mark."""

import re
from pathlib import Path

import msgspec

from benchmarks.rig import engines_of


class MemoryRow(msgspec.Struct, frozen=True):
    """One process."""

    after: str
    process: str
    peak_rss_mib: float


def peaks_of(after: str, worker_pid: int) -> list[MemoryRow]:
    """Supervisor and engines of a running worker; `after` says what they had done by then."""
    return [
        MemoryRow(after, "supervisor", _peak_mib(worker_pid)),
        *(MemoryRow(after, "engine", _peak_mib(engine.pid)) for engine in engines_of(worker_pid)),
    ]


def _peak_mib(pid: int) -> float:
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None, "Linux has it for every process that has memory"
    return round(int(found[1]) / 1024, 1)
