"""Logs of workers: what they said last, and that all of them together stay small, whatever crashes how often."""

from collections.abc import Collection
from pathlib import Path

# Of workers that are gone. A model that crashes at each start writes one every few seconds.
KEEP_LOGS = 50
KEEP_BYTES = 256 << 20
# A log that grows beyond this is started anew, and its second half kept beside it.
ROTATE_BYTES = 16 << 20
# The last words are looked for in this much of the end: a traceback, and not a day of jobs.
_END_BYTES = 64 << 10
_LINE_CHARS = 300


def last_error(log: Path) -> str:
    """The last line that tells of an error, else the last one; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _END_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return last_error_in(text)


def last_error_in(text: str) -> str:
    """The same of the end of a log."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line]
    return (errors or lines or [""])[-1][:_LINE_CHARS]


def prune(logs: Path, workers: Collection[str]) -> None:
    """Remove the oldest logs beyond KEEP_LOGS and KEEP_BYTES, but none of `workers`.

    Raises:
        OSError: the folder cannot be read or written.
    """
    gone = [path for path in logs.iterdir() if path.name.partition(".")[0] not in workers]
    gone.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    size_bytes = 0
    for place, path in enumerate(gone):
        size_bytes += path.stat().st_size
        if place >= KEEP_LOGS or size_bytes > KEEP_BYTES:
            path.unlink()


def is_too_large(log: Path) -> bool:
    """Whether it is time to rotate."""
    try:
        return log.stat().st_size > ROTATE_BYTES
    except OSError:
        return False


def rotate(log: Path) -> None:
    """Start the log of a running worker anew; its second half is kept as `.1`.

    The worker has the file open to append, so it goes on at the start. What it writes in this moment is lost.

    Raises:
        OSError: the disk is full, or fails; nothing is lost then.
    """
    with log.open("r+b") as file:
        file.seek(-ROTATE_BYTES // 2, 2)
        log.with_name(log.name + ".1").write_bytes(file.read())
        file.truncate(0)
