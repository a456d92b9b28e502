"""What a folder of the cache holds: every file with its size and hash, written last and checked before use."""

import hashlib
import os
from datetime import datetime
from pathlib import Path

import msgspec

MANIFEST = "manifest.json"

_CHUNK_BYTES = 4 * 1024 * 1024


class WeightFile(msgspec.Struct, frozen=True, order=True):
    """One file; `path` is relative to the folder, with `/`."""

    path: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """The content of one folder and where it came from."""

    source: str
    options: dict[str, str]
    files: tuple[WeightFile, ...]
    created_at: datetime
    versions: dict[str, str]
    """Programs that made the files, by name."""

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None if it has no valid one."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it so that it survives a power cut."""
    with (folder / MANIFEST).open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def has_all_files(folder: Path, manifest: Manifest) -> bool:
    """Whether every file is there with its size. Cheap: reads no content."""
    for file in manifest.files:
        try:
            if (folder / file.path).stat().st_size != file.size_bytes:
                return False
        except OSError:
            return False
    return True


def first_damaged(folder: Path, files: tuple[WeightFile, ...]) -> str | None:
    """Path of the first file whose content is not what is listed; None if all are. Reads every byte."""
    return next((file.path for file in files if measure(folder, file.path) != file), None)


def measure(folder: Path, name: str) -> WeightFile | None:
    """Size and hash of a file, brought to disk; None if it is not there."""
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with (folder / name).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
            os.fsync(file.fileno())
    except FileNotFoundError:
        return None
    return WeightFile(name, size_bytes, digest.hexdigest())
