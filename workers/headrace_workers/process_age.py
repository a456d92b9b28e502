"""How long ago this process began, before its first line of code ran."""

import os
from pathlib import Path

# Of `/proc/<pid>/stat`, behind the name, which is in brackets and may hold anything: clock ticks from boot to start.
_START_FIELD = 19


def process_age_s(proc: Path = Path("/proc")) -> float:
    """Seconds since the kernel made this process, to a hundredth; 0 where that cannot be known."""
    try:
        fields = (proc / "self" / "stat").read_text().rpartition(")")[2].split()
        since_boot_s = float((proc / "uptime").read_text().split()[0])
        began_s = int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
    # Where a container is shown an uptime of its own, the two do not belong together.
    return max(0.0, since_boot_s - began_s)
