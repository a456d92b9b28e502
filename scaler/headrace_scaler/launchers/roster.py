"""Who works on this machine: the record of each worker, kept on disk, and brought up to date by looking at processes.

Owns signals, time limits and what workers leave behind. Starts nobody.
"""

import contextlib
import shutil
from pathlib import Path

import msgspec

from headrace_contracts.clock import Clock
from headrace_scaler.launchers import worker_logs
from headrace_scaler.launchers.port import ENDED_WELL, Launched, LaunchError
from headrace_scaler.launchers.process import ProcessMark, find_by_output, kill_session, runs, terminate
from headrace_scaler.launchers.records import Record, RecordFolder

# Between the end of a worker and the line about it, which its parent writes.
STATUS_DEADLINE_S = 1.0
# How long a worker may be on its way before its start counts as failed. A fork takes milliseconds.
START_DEADLINE_S = 10.0
# After this long without a look, the number of a session may have been given to somebody else.
SESSION_KNOWN_S = 5.0
UNWATCHED = "ended while nobody watched"


class Roster:
    """All workers of one folder that are not forgotten."""

    def __init__(self, files: RecordFolder, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._starting: set[str] = set()
        self._unsaved: set[str] = set()
        self._seen_at: dict[str, float] = {}
        self._missed_at: dict[str, float] = {}

    def __contains__(self, worker: str) -> bool:
        return worker in self._records

    def adopt(self) -> None:
        """Take over what an earlier run left in the folder.

        Raises:
            LaunchError: a record cannot be read, and its worker runs.
        """
        try:
            self._records = self._files.read()
        except OSError as error:
            raise LaunchError(f"the records of workers cannot be read: {error}") from error
        for record in list(self._records.values()):
            if record.ended is not None:
                continue
            process = record.process or find_by_output(Path(record.log))
            if process is None or not runs(process):
                self._end(record, _status(record) or UNWATCHED)
            elif record.process is None:
                self._identified(record, process)

    def look(self) -> tuple[Launched, ...]:
        """All of them, as they are now."""
        for worker in list(self._records):
            self._look_after(worker)
        return tuple(record.launched for record in self._records.values())

    def enter(self, record: Record) -> None:
        """Write down a worker that is about to be started, and make room for it.

        Raises:
            OSError: that cannot be done, and nothing is left of it.
        """
        worker_logs.prune(self._files.logs, self._records)
        self._records[record.worker] = record  # before its folder, which `clean` would remove
        try:
            Path(record.log).unlink(missing_ok=True)  # of an earlier worker of this id
            Path(record.status).unlink(missing_ok=True)
            Path(record.scratch).mkdir(exist_ok=True)
            self._files.save(record)
        except OSError:
            self._remove(record)
            raise
        self._starting.add(record.worker)

    def started(self, worker: str, process: ProcessMark) -> None:
        """It runs as this process."""
        self._starting.discard(worker)
        self._identified(self._records[worker], process)

    def not_started(self, worker: str) -> bool:
        """Its start failed, as far as whoever tried it knows; whether that is so. If it runs, it is one of us."""
        self._starting.discard(worker)
        record = self._records[worker]
        process = find_by_output(Path(record.log))
        if process is not None:
            self._identified(record, process)
            return False
        self._remove(record)
        return True

    def perhaps_started(self, worker: str) -> None:
        """Nobody knows: it is looked for, until START_DEADLINE_S have passed."""
        self._starting.discard(worker)

    def stop(self, worker: str, grace_s: float) -> None:
        """SIGTERM now, SIGKILL after a grace; does nothing if it was told so before, has ended or is unknown."""
        record = self._look_after(worker)
        if record is None or record.ended is not None or record.kill_at_s is not None:
            return
        self._keep(msgspec.structs.replace(record, kill_at_s=self._clock.monotonic() + grace_s))
        if record.process is not None:
            terminate(record.process)

    def kill_all(self) -> None:
        """SIGKILL to everyone, whatever grace they were given."""
        for record in list(self._records.values()):
            if record.ended is None:
                self._keep(msgspec.structs.replace(record, kill_at_s=self._clock.monotonic()))
                self._look_after(record.worker)

    def forget(self, worker: str) -> None:
        """Drop a worker that has ended; does nothing if it has not."""
        record = self._look_after(worker)
        if record is not None and record.ended is not None:
            self._remove(record)

    def until_next_kill_s(self) -> float:
        """Seconds until a grace is over; infinite if none is."""
        waiting = (
            each.kill_at_s - self._clock.monotonic()
            for each in self._records.values()
            if each.kill_at_s is not None and not each.killed and each.ended is None
        )
        return min(waiting, default=float("inf"))

    def save_again(self) -> None:
        """Write down what a full disk kept us from writing."""
        for worker in list(self._unsaved):
            self._keep(self._records[worker])

    def clean(self) -> None:
        """Scratch folders of those that have ended, and logs that have grown large. May be called in a thread."""
        # In this order: a folder that is made after it was listed is not looked at.
        folders = list(self._files.scratches.iterdir())
        present = [record for record in list(self._records.values()) if record.ended is None]
        in_use = {record.scratch for record in present}
        for folder in folders:
            if str(folder) not in in_use:
                shutil.rmtree(folder, ignore_errors=True)
        for record in present:
            if worker_logs.is_too_large(Path(record.log)):
                with contextlib.suppress(OSError):  # tried again in a second
                    worker_logs.rotate(Path(record.log))

    def _look_after(self, worker: str) -> Record | None:
        """What is true of a worker now; one whose grace is over is killed."""
        record = self._records.get(worker)
        if record is None or record.ended is not None or worker in self._starting:
            return record
        if record.process is None and (process := find_by_output(Path(record.log))) is not None:
            record = self._identified(record, process)
        if record.process is None or not runs(record.process):
            return self._missed(record)
        now = self._clock.monotonic()
        self._seen_at[worker] = now
        if record.kill_at_s is not None and not record.killed and now >= record.kill_at_s:
            kill_session(record.process)
            record = self._keep(msgspec.structs.replace(record, killed=True))
        return record

    def _missed(self, record: Record) -> Record:
        """It is not there: what its parent says about it, or, after a moment in which it said nothing, only that."""
        now = self._clock.monotonic()
        missed_at = self._missed_at.setdefault(record.worker, now)
        how = _status(record)
        patience_s = START_DEADLINE_S if record.process is None else STATUS_DEADLINE_S
        if not how and now - missed_at < patience_s:
            return record
        if record.process is not None and now - self._seen_at.get(record.worker, -SESSION_KNOWN_S) < SESSION_KNOWN_S:
            kill_session(record.process)  # what it left behind
        return self._end(record, how or UNWATCHED)

    def _identified(self, record: Record, process: ProcessMark) -> Record:
        self._seen_at[record.worker] = self._clock.monotonic()
        if record.kill_at_s is not None:  # it was stopped before there was anybody to tell
            terminate(process)
        return self._keep(msgspec.structs.replace(record, process=process))

    def _end(self, record: Record, how: str) -> Record:
        if record.killed and how in ("SIGKILL", UNWATCHED):
            how = "SIGKILL, since it was still there after its grace"
        elif how.startswith(("exit status", UNWATCHED)) and how != ENDED_WELL:
            words = worker_logs.last_error(Path(record.log))
            how = f"{how}: {words}" if words else how
        return self._keep(msgspec.structs.replace(record, ended=how))

    def _keep(self, record: Record) -> Record:
        """A disk that is full does not keep us from knowing: it is written as soon as there is room."""
        self._records[record.worker] = record
        try:
            self._files.save(record)
            self._unsaved.discard(record.worker)
        except OSError:
            self._unsaved.add(record.worker)
        return record

    def _remove(self, record: Record) -> None:
        self._records.pop(record.worker, None)
        self._unsaved.discard(record.worker)
        self._seen_at.pop(record.worker, None)
        self._missed_at.pop(record.worker, None)
        with contextlib.suppress(OSError):  # a file that stays is one more worker that has ended
            self._files.remove(record.worker)


def _status(record: Record) -> str:
    """What its parent wrote down about its end; empty if nothing."""
    try:
        return Path(record.status).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
