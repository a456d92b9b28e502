"""A small disk of its own for a test: a tmpfs, filled and freed at will."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted folder; `disk / name` is a path on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filler = folder / "filler"

    def __truediv__(self, name: str) -> Path:
        return self._folder / name

    def fill(self) -> None:
        """Leave no byte free."""
        with self._filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        assert os.statvfs(self._folder).f_bavail == 0, "the disk is full"

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[SmallDisk]:
    """A disk of `size_mib`; skips the test, loudly, where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(
            f"NOT TESTED HERE: a full disk. Mounting a small one takes rights we lack: {mounted.stderr.strip()}"
        )
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
