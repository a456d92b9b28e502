"""models.lock: which commit and which bytes of each hub model are in use. Written by `pull`, committed by users.

A copy of the entries is kept in the cache, so that a worker finds what was pulled without the file.
"""

from pathlib import Path

import msgspec

from headrace_contracts.errors import WeightsError
from headrace_workers.weights.layout import Layout
from headrace_workers.weights.manifest import WeightFile
from headrace_workers.weights.origin import HubModel

_VERSION = 1


class LockedModel(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One selection of files of one repository at one commit."""

    repo: str
    layout: Layout
    commit: str
    files: tuple[WeightFile, ...]
    variant: str | None = None
    remote_code: bool = False

    def is_of(self, model: HubModel) -> bool:
        """Whether this entry pins `model`."""
        return (
            self.repo == model.repo
            and model.layout in (None, self.layout)
            and (self.variant, self.remote_code) == (model.variant, model.remote_code)
        )


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    models: tuple[LockedModel, ...] = ()
    version: int = _VERSION

    def find(self, model: HubModel) -> LockedModel | None:
        """The entry that pins a model, or None."""
        return next((entry for entry in self.models if entry.is_of(model)), None)

    def with_entry(self, new: LockedModel) -> "Lock":
        """A lock in which `new` replaces the entry of the same selection."""
        same = HubModel(new.repo, new.layout, new.variant, new.remote_code)
        entries = [entry for entry in self.models if not entry.is_of(same)]
        ordered = sorted([*entries, new], key=lambda e: (e.repo, e.layout, e.variant or "", e.remote_code))
        return Lock(tuple(ordered))


def read_lock(path: Path) -> Lock:
    """Read a lock file; one that does not exist is empty.

    Raises:
        WeightsError: it is not a lock file of ours.
    """
    try:
        lock = msgspec.json.decode(path.read_bytes(), type=Lock)
    except FileNotFoundError:
        return Lock()
    except (OSError, msgspec.DecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}; restore it from version control or remove it") from error
    if lock.version != _VERSION:
        raise WeightsError(f"{path} has version {lock.version}, and this Headrace reads version {_VERSION}")
    return lock


def write_lock(path: Path, lock: Lock) -> None:
    """Replace the file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(lock), indent=2) + b"\n")
    temporary.replace(path)
