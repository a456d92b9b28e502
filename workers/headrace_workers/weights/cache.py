"""The local weight cache: one folder per source and options, complete or absent.

<cache>/weights/<readable name>-<hash of source and options>/    files and manifest.json, renamed into place
<cache>/weights/.partial/<same name>/                            being made; nothing reads it
<cache>/weights/.locks/<same name>                               held while it is made (flock: dies with its process)
"""

import fcntl
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from headrace_contracts.clock import Clock, SystemClock
from headrace_contracts.errors import WeightsError
from headrace_workers.weights.layout import files_below
from headrace_workers.weights.manifest import (
    Manifest,
    WeightFile,
    has_all_files,
    measure,
    read_manifest,
    write_manifest,
)

Progress = Callable[[str], None]


def silent(line: str) -> None:
    """Report no progress."""


class CacheKey(msgspec.Struct, frozen=True):
    """What a folder is made from. Other options make another folder."""

    label: str
    """For people who list the cache."""
    source: str
    options: dict[str, str]

    @property
    def name(self) -> str:
        """Name of the folder: readable, and unique to source and options."""
        content = json.dumps([self.source, self.options], sort_keys=True)
        label = re.sub(r"[^A-Za-z0-9._-]+", "-", self.label).strip(".-")[:80]
        return f"{label}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


class WeightCache:
    """The cache below one folder; any number of processes may use it."""

    def __init__(self, root: Path, clock: Clock | None = None) -> None:
        self.folder = root / "weights"
        self._clock = clock or SystemClock()

    def ready(self, key: CacheKey) -> tuple[Path, Manifest] | None:
        """The folder of a key and its manifest, if every file is there with its size."""
        folder = self.folder / key.name
        manifest = read_manifest(folder)
        if manifest is None or not has_all_files(folder, manifest):
            return None
        return folder, manifest

    def build(
        self,
        key: CacheKey,
        fill: Callable[[Path], dict[str, str]],
        progress: Progress = silent,
        *,
        resume: bool = False,
    ) -> tuple[Path, Manifest]:
        """The folder of a key, made by `fill` unless it is ready or another process is making it.

        Args:
            key: what to make.
            fill: writes files into the folder it is given, and returns the versions of the programs that did.
            progress: told what takes time.
            resume: keep what an earlier `fill` left before it failed; `fill` checks those files itself.
        """
        partial = self.folder / ".partial" / key.name
        with self.locked(key.name, progress):
            ready = self.ready(key)
            if ready is not None:
                return ready
            self._remove_dead(keep=key.name if resume else None, own=key.name)
            partial.mkdir(parents=True, exist_ok=True)
            try:
                versions = fill(partial)
                manifest = self._seal(partial, key, versions)
            except BaseException:
                if not resume:
                    shutil.rmtree(partial, ignore_errors=True)
                raise
            folder = self.folder / key.name
            # Here only when it is not ready: files were lost or cut.
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
            return folder, manifest

    def discard(self, key: CacheKey) -> None:
        """Remove a folder, so that it is made again."""
        with self.locked(key.name):
            shutil.rmtree(self.folder / key.name, ignore_errors=True)

    @contextmanager
    def locked(self, name: str, progress: Progress = silent) -> Iterator[None]:
        """Hold the lock `name` against all processes; waits for whoever has it.

        Raises:
            WeightsError: nothing can be kept here.
        """
        lock = self.folder / ".locks" / name
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            # Never removed: a process could hold a lock on a file that is no longer the one others open.
            file = lock.open("w")
        except OSError as error:
            raise WeightsError(
                f"weights cannot be kept in {self.folder} ({error.strerror}): let this user write there, or choose "
                "another place (`cache_dir`, HEADRACE_CACHE_DIR)"
            ) from error
        with file:
            if not _try_lock(file.fileno()):
                progress(f"waiting for another process that makes {name}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _remove_dead(self, *, keep: str | None, own: str) -> None:
        """Remove what processes left that died while they made a folder; the lock `own` is held by us."""
        for partial in (self.folder / ".partial").glob("*"):
            if partial.name == keep:
                continue
            if partial.name == own:
                shutil.rmtree(partial, ignore_errors=True)
                continue
            with (self.folder / ".locks" / partial.name).open("w") as file:
                if _try_lock(file.fileno()):
                    shutil.rmtree(partial, ignore_errors=True)

    def _seal(self, folder: Path, key: CacheKey, versions: dict[str, str]) -> Manifest:
        """List what was written; the manifest is the last file."""
        files: list[WeightFile] = []
        for name in files_below(folder):
            # safetensors writes 0600: a cache shared by several users could not be read.
            (folder / name).chmod(0o644)
            file = measure(folder, name)
            assert file is not None
            files.append(file)
        manifest = Manifest(key.source, key.options, tuple(files), self._clock.now(), versions)
        write_manifest(folder, manifest)
        return manifest


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
