"""What is kept on disk of the workers that were started here: one file each, and a lock, so that one launcher writes.

<folder>/lock               held by the launcher that uses the folder
<folder>/<worker>.json      its `Record`
<folder>/<worker>.status    how it ended, as whoever started it saw
<folder>/logs/<worker>.log  its output
<folder>/scratch/<worker>/  its temporary files
"""

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec

from headrace_scaler.launchers.port import Launched, LaunchError
from headrace_scaler.launchers.process import ProcessMark, find_by_output
from headrace_scaler.policy.observation import Need

# Raised when a field changes its meaning, so that no other version takes a worker for what it is not.
VERSION = 1


class Record(msgspec.Struct, frozen=True):
    """One worker."""

    version: int
    worker: str
    model: str
    slot: str
    need: Need
    ordered_at: float
    """Unix time."""
    log: str
    status: str
    scratch: str
    process: ProcessMark | None = None
    """None until it is known: we may end between the start of a worker and writing down its id."""
    kill_at_s: float | None = None
    """When it is killed, once it was told to stop: on the monotonic clock, which all processes of one boot share."""
    killed: bool = False
    """By us, at `kill_at_s`."""
    ended: str | None = None

    @property
    def launched(self) -> Launched:
        """What the launcher says of it."""
        return Launched(self.worker, self.model, self.slot, self.need, self.ordered_at, self.ended)


class RecordFolder:
    """The folder, locked from `open` to `close`."""

    def __init__(self, folder: Path, lock: int) -> None:
        self._folder = folder
        self._lock = lock

    @classmethod
    def open(cls, folder: Path) -> "RecordFolder":
        """Use `folder`, made if missing, alone.

        Raises:
            LaunchError: another launcher uses it, or it cannot be written.
        """
        try:
            for each in (folder, folder / "logs", folder / "scratch"):
                each.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LaunchError(
                f"workers cannot be started: {folder} cannot be written ({error.strerror or error})"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode(errors="replace")
            os.close(lock)
            raise LaunchError(
                f"{folder} is in use by another scaler (process {holder}), which starts the workers of this machine: "
                "stop that one first, or choose another folder"
            ) from None
        with contextlib.suppress(OSError):  # the disk is full: the next one will not be told who we are
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        return cls(folder.resolve(), lock)

    def close(self) -> None:
        """Let others use it."""
        os.close(self._lock)

    @property
    def logs(self) -> Path:
        """Folder of all logs."""
        return self._folder / "logs"

    @property
    def scratches(self) -> Path:
        """Folder of all scratch folders."""
        return self._folder / "scratch"

    def log(self, worker: str) -> Path:
        """Where a worker's output goes."""
        return self.logs / f"{worker}.log"

    def status(self, worker: str) -> Path:
        """Where it is written how a worker ended."""
        return self._folder / f"{worker}.status"

    def scratch(self, worker: str, ordered_at: float) -> Path:
        """A worker's temporary files: another folder for each one, so that an old one can be removed at any time."""
        return self.scratches / f"{worker}.{round(ordered_at * 1e6)}"

    def save(self, record: Record) -> None:
        """Write a record: whole, or not at all.

        Raises:
            OSError: the disk is full, or fails.
        """
        unfinished = self._folder / f"{record.worker}.json.tmp"
        unfinished.write_bytes(msgspec.json.encode(record))
        unfinished.replace(self._record(record.worker))

    def remove(self, worker: str) -> None:
        """Drop the record of a worker, and how it ended."""
        self._record(worker).unlink(missing_ok=True)
        self.status(worker).unlink(missing_ok=True)

    def read(self) -> dict[str, Record]:
        """All records. One that cannot be understood is put aside, if its worker has ended.

        Raises:
            LaunchError: it runs. Nothing is known of it but its id, so it can neither be counted nor left alone.
        """
        for unfinished in self._folder.glob("*.tmp"):
            unfinished.unlink()
        records = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                record = _decode(path.read_bytes())
                if record.worker != path.stem:
                    raise msgspec.ValidationError(f"it is of worker {record.worker}")
                records[record.worker] = record
            except msgspec.MsgspecError as error:
                self._put_aside(path, error)
        for status in self._folder.glob("*.status"):
            if status.stem not in records:
                status.unlink()
        return records

    def _put_aside(self, path: Path, error: msgspec.MsgspecError) -> None:
        process = find_by_output(self.log(path.stem))
        if process is not None:
            raise LaunchError(
                f"{path} cannot be understood ({error}), and worker {path.stem} runs as process {process.pid}: "
                f"stop it with `kill {process.pid}` and start again, or go back to the version that started it"
            )
        path.replace(path.with_name(path.name + ".unreadable"))

    def _record(self, worker: str) -> Path:
        return self._folder / f"{worker}.json"


class _Version(msgspec.Struct, frozen=True):
    version: int


def _decode(data: bytes) -> Record:
    version = msgspec.json.decode(data, type=_Version).version
    if version != VERSION:
        raise msgspec.ValidationError(f"it is of version {version}, and this Headrace knows version {VERSION}")
    return msgspec.json.decode(data, type=Record)
