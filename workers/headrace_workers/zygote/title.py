"""The command line that other programs see of a forked process: without it, all look like their zygote."""

import ctypes
import sys
from pathlib import Path

# Places in /proc/self/stat behind the name, which may hold anything: see proc(5), fields 48 and 49.
_ARGUMENTS_BEGIN, _ARGUMENTS_END = 45, 46


def set_title(*words: str) -> None:
    """Show `words` as this process's arguments, cut to the room that its first ones took."""
    if sys.platform != "linux":
        return
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    begin, end = int(fields[_ARGUMENTS_BEGIN]), int(fields[_ARGUMENTS_END])
    room = end - begin
    if begin == 0 or room < 1:  # the kernel does not tell
        return
    # A last byte that is none would make the kernel read on into the environment.
    text = "\0".join(words).encode()[: room - 1]
    ctypes.memmove(begin, text.ljust(room, b"\0"), room)
