"""One folder, one system."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace_contracts.settings import data_folder
from headrace_local.folder import FolderError, locked

HOLD = """
import asyncio, subprocess, sys
from pathlib import Path
from headrace_local.folder import locked
async def main():
    async with locked(Path(sys.argv[1])) as handle:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[handle])
        print(child.pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_a_second_user_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    async with locked(tmp_path):
        with pytest.raises(FolderError, match=rf"in use by another `headrace up` \(process {os.getpid()}\).*--dir"):
            async with locked(tmp_path):
                pass


async def test_it_is_free_after_use(tmp_path: Path) -> None:
    for _ in range(2):
        async with locked(tmp_path):
            pass


async def test_after_a_kill_it_is_free_only_when_the_server_that_was_left_has_ended(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    holder.kill()
    holder.wait()
    holder.stdout.close()
    # The child's input ended with its parent, so it ends by itself: entering waits for that.
    async with locked(tmp_path):
        with pytest.raises(ProcessLookupError):
            _signal_unless_zombie(child)


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match=r"file/below cannot be used.*--dir"):
        async with locked(tmp_path / "file" / "below"):
            pass


def test_the_default_folder_follows_xdg() -> None:
    assert data_folder({"XDG_DATA_HOME": "/data"}) == Path("/data/headrace")
    assert data_folder({}) == Path.home() / ".local" / "share" / "headrace"


def _signal_unless_zombie(pid: int) -> None:
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
        raise ProcessLookupError(pid)
    os.kill(pid, signal.SIGCONT)
