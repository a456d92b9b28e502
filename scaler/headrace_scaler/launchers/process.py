"""A process that is told from every other one, also by a later run of ours: its id, when it started, in which boot.

Ids are reused. So whoever is signalled is first held by a pidfd, and then compared with what was noted of it.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec

_PROC = Path("/proc")
# Ended, and not yet waited for by its parent. In a container whose first process waits for nobody, it stays so.
_ENDED_STATES = frozenset("ZX")


class ProcessMark(msgspec.Struct, frozen=True):
    """One process of one boot of the machine."""

    pid: int
    started_ticks: int
    """When it started, as the kernel counts from boot: field 22 of /proc/<pid>/stat."""
    boot: str
    """Id of the boot: after another, equal ids and ticks mean nothing."""


class _Stat(msgspec.Struct, frozen=True):
    state: str
    session: int
    started_ticks: int


def boot_id() -> str:
    """What is different after each start of the machine."""
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def mark_of(pid: int) -> ProcessMark | None:
    """The process that has this id now, also if it has ended and is not yet waited for; None if none has it."""
    stat = _stat(pid)
    return None if stat is None else ProcessMark(pid, stat.started_ticks, boot_id())


def runs(mark: ProcessMark) -> bool:
    """Whether it is this process that has the id, and it has not ended."""
    stat = _stat(mark.pid)
    return (
        stat is not None
        and stat.state not in _ENDED_STATES
        and stat.started_ticks == mark.started_ticks
        and boot_id() == mark.boot
    )


def terminate(mark: ProcessMark) -> None:
    """SIGTERM to this process alone, which decides about its children; does nothing if it has ended."""
    with _held(mark.pid) as handle:
        if handle is not None and runs(mark):
            _send(handle, signal.SIGTERM)


def kill_session(mark: ProcessMark) -> None:
    """SIGKILL to the process and to all of its session; does nothing if another process has its id by now.

    It may have ended, but lately: no process is given the id while any of its session is left, but if none is, another
    session can have the same number one day.
    """
    now = mark_of(mark.pid)
    if boot_id() == mark.boot and (now is None or now == mark):
        _kill_members(mark.pid)


def find_by_output(log: Path) -> ProcessMark | None:
    """The leader of a session whose standard output or error is `log`: a worker whose id nobody came to write down."""
    target = str(log.resolve())
    for pid in _pids():
        stat = _stat(pid)
        if stat is not None and stat.session == pid and stat.state not in _ENDED_STATES and target in _outputs(pid):
            return ProcessMark(pid, stat.started_ticks, boot_id())
    return None


def _kill_members(session: int) -> None:
    """One pass after the other, since a member may fork while we look, until a pass finds nobody new."""
    killed: set[int] = set()
    while True:
        found = {pid for pid in _pids() if _is_member(pid, session)} - killed
        if not found:
            return
        for pid in found:
            with _held(pid) as handle:
                if handle is not None and _is_member(pid, session):
                    _send(handle, signal.SIGKILL)
        killed |= found


def _is_member(pid: int, session: int) -> bool:
    stat = _stat(pid)
    return stat is not None and stat.session == session and stat.state not in _ENDED_STATES


@contextlib.contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """A handle on the process that has this id now: what is sent to it reaches that one or nobody."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _send(handle: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)


def _pids() -> Iterator[int]:
    return (int(path.name) for path in _PROC.iterdir() if path.name.isdigit())


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in brackets may hold anything, brackets and spaces too.
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[0], int(fields[3]), int(fields[19]))


def _outputs(pid: int) -> set[str]:
    found = set()
    for number in ("1", "2"):
        with contextlib.suppress(OSError):
            found.add(str((_PROC / str(pid) / "fd" / number).readlink()))
    return found
