"""The folder of a local system: where it is, and that only one system uses it.

Two nats-servers open the same store without a word and destroy it, so a lock file stands before it. The lock is held
by an open file that nats-server inherits: after a SIGKILL of ours it is free only when that server has ended too.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

from headrace_contracts.errors import HeadraceError

# How long a nats-server whose starter was killed may take to end.
ORPHAN_DEADLINE_S = 10.0


class FolderError(HeadraceError):
    """The folder is in use, or cannot be used."""


@contextlib.asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[int]:
    """Use `folder`, made if missing, alone; the file descriptor that holds the lock.

    Raises:
        FolderError: another system uses it, or it cannot be written.
    """
    handle = _open_lock(folder)
    try:
        await _lock(folder, handle)
        os.truncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _open_lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise FolderError(
            f"{folder} cannot be used ({error.strerror or error}): choose another folder with --dir"
        ) from error


async def _lock(folder: Path, handle: int) -> None:
    tries = int(ORPHAN_DEADLINE_S / 0.05)
    for _ in range(tries):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode()
            if holder.isdigit() and _alive(int(holder)):
                raise FolderError(
                    f"{folder} is in use by another `headrace up` (process {holder}): "
                    "use that one, stop it, or choose another folder with --dir"
                ) from None
            await asyncio.sleep(0.05)
        else:
            return
    raise FolderError(
        f"{folder} is still in use by the nats-server of a `headrace up` that was killed: "
        "stop it, or choose another folder with --dir"
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
