"""Append-only files of JSON lines: how everything in a run leaves its evidence."""

import os
from pathlib import Path
from typing import Generic, Self, TypeVar

import msgspec

T = TypeVar("T")


class Journal(Generic[T]):
    """Appends records to a file; a line is there whole or not at all, whatever happens to us."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, record: T) -> None:
        """Append a line. Not synced: it has to outlive processes, not the machine."""
        os.write(self._file, msgspec.json.encode(record) + b"\n")

    def close(self) -> None:
        """Close the file; nothing is buffered."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def parse_journal(data: bytes, kind: type[T]) -> list[T]:
    """The records of a journal's bytes. A last line without its end was never finished: it is left out.

    Raises:
        msgspec.DecodeError: another line is no record.
    """
    decoder = msgspec.json.Decoder(kind)
    whole, _, _ = data.rpartition(b"\n")
    return [decoder.decode(line) for line in whole.split(b"\n") if line]


def read_journal(path: Path, kind: type[T]) -> list[T]:
    """The records of a file; none if it is not there."""
    return parse_journal(path.read_bytes(), kind) if path.exists() else []
