"""Fetch a model from a hub into the cache, pinned by models.lock.

The first pull resolves the default branch to a commit and records it with every file's size and hash. Later pulls take
that commit and those bytes, and refuse others, until `update` resolves anew.
"""

import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import msgspec

from headrace_contracts.errors import WeightsError
from headrace_contracts.model import ModelSpec
from headrace_workers.weights.cache import WeightCache
from headrace_workers.weights.hub import Hub, Revision
from headrace_workers.weights.hub_files import HubFile, choose, layout_wanted
from headrace_workers.weights.layout import Layout
from headrace_workers.weights.lockfile import LockedModel, read_lock, write_lock
from headrace_workers.weights.manifest import WeightFile, first_damaged
from headrace_workers.weights.origin import HubModel, check_repo, hub_model
from headrace_workers.weights.ready import cache_lock, hub_key


class Watcher(Protocol):
    """Sees a pull go on."""

    def say(self, line: str) -> None:
        """What happens next."""
        ...

    def begin(self, size_bytes: int) -> None:
        """The download begins; so much there is in all."""
        ...

    def advance(self, size_bytes: int) -> None:
        """So many more bytes are here; negative when a file has to start again."""
        ...


class Unwatched:
    """A watcher that shows nothing."""

    def say(self, line: str) -> None:
        """Nothing."""

    def begin(self, size_bytes: int) -> None:
        """Nothing."""

    def advance(self, size_bytes: int) -> None:
        """Nothing."""


class Pulled(msgspec.Struct, frozen=True):
    """A model that is in the cache."""

    folder: Path
    commit: str
    size_bytes: int


def pull(
    model: ModelSpec | HubModel | str,
    cache: Path,
    lock_file: Path,
    *,
    update: bool = False,
    endpoint: str | None = None,
    watcher: Watcher | None = None,
) -> Pulled:
    """Fetch a model's files into the cache and record them in the lock file.

    Args:
        model: a spec with `hub:` weights, or a repository (<org>/<name>).
        cache: folder of all cached things.
        lock_file: models.lock; made if it does not exist.
        update: take the commit the default branch is at now, even if the lock names another.
        endpoint: the hub; None: HF_ENDPOINT, else the public one.
        watcher: sees the progress.

    Raises:
        WeightsError: says what is wrong and what to do; nothing is accepted into the cache then.
    """
    return _Pull(_wanted(model), WeightCache(cache), lock_file, endpoint, watcher or Unwatched()).run(update)


def _wanted(model: ModelSpec | HubModel | str) -> HubModel:
    if isinstance(model, ModelSpec):
        return hub_model(model)
    return HubModel(check_repo(model)) if isinstance(model, str) else model


class _Pull:
    """One run of `pull`."""

    def __init__(
        self, model: HubModel, cache: WeightCache, lock_file: Path, endpoint: str | None, watcher: Watcher
    ) -> None:
        self._model = model
        self._cache = cache
        self._lock_file = lock_file
        self._endpoint = endpoint
        self._watcher = watcher

    def run(self, update: bool) -> Pulled:
        pinned = None if update else read_lock(self._lock_file).find(self._model)
        entry = (pinned and self._in_cache(pinned)) or self._fetch(pinned)
        self._record(entry)
        ready = self._cache.ready(hub_key(entry))
        if ready is None:
            raise WeightsError(f"the files of {entry.repo} vanished from {self._cache.folder}: pull again")
        folder, manifest = ready
        return Pulled(folder, entry.commit, manifest.size_bytes)

    def _in_cache(self, pinned: LockedModel) -> LockedModel | None:
        """The pinned entry, if the cache has its very bytes; a folder with others is removed."""
        key = hub_key(pinned)
        ready = self._cache.ready(key)
        if ready is None:
            return None
        folder, manifest = ready
        self._watcher.say(f"checking {manifest.size_bytes / 1e6:.0f} MB of {pinned.repo}")
        damaged = first_damaged(folder, pinned.files)
        if damaged is None and manifest.files == pinned.files:
            return pinned
        self._watcher.say(f"{damaged or 'the list of files'} in the cache is not what the lock says: fetching again")
        self._cache.discard(key)
        return None

    def _fetch(self, pinned: LockedModel | None) -> LockedModel:
        """Download into the cache what is pinned, or else what the default branch has now."""
        hub = Hub(self._endpoint)
        self._watcher.say(f"asking {hub.endpoint} for {self._model.repo}")
        revision = hub.resolve(self._model.repo, pinned.commit if pinned else None)
        if pinned is not None and revision.commit != pinned.commit:
            raise WeightsError(
                f"{self._lock_file} pins {pinned.repo} to commit {pinned.commit[:12]} and {hub.endpoint} answers with "
                f"{revision.commit[:12]}: refused; `--update` accepts it"
            )
        layout = layout_wanted(self._model, [file.path for file in revision.files])
        model = msgspec.structs.replace(self._model, layout=layout)
        entry = LockedModel(model.repo, layout, revision.commit, (), model.variant, model.remote_code)

        def fill(folder: Path) -> dict[str, str]:
            if pinned is None:
                files = choose(model, layout, revision.files, self._components(hub, revision, layout, folder))
            else:
                files = self._pinned_files(pinned, revision)
            _clear_all_but(folder, files)
            self._watcher.begin(sum(file.size_bytes for file in files))
            for file in files:
                fetched = hub.fetch(model.repo, revision.commit, file, folder, self._watcher.advance)
                self._check_pin(pinned, fetched)
            shutil.rmtree(folder / ".cache", ignore_errors=True)
            return {"huggingface_hub": version("huggingface_hub")}

        _, manifest = self._cache.build(hub_key(entry), fill, self._watcher.say, resume=True)
        if pinned is not None and manifest.files != pinned.files:
            # Another process pulled it meanwhile, without this lock.
            raise WeightsError(self._refused(pinned, "the list of files"))
        return msgspec.structs.replace(entry, files=manifest.files)

    def _components(self, hub: Hub, revision: Revision, layout: Layout, folder: Path) -> list[str]:
        """The folders of a pipeline, which only its model_index.json tells."""
        if layout is not Layout.DIFFUSERS:
            return []
        index = next(file for file in revision.files if file.path == "model_index.json")
        hub.fetch(self._model.repo, revision.commit, index, folder, lambda _: None)
        try:
            parts = msgspec.json.decode((folder / index.path).read_bytes(), type=dict[str, object])
        except msgspec.DecodeError as error:
            raise WeightsError(f"model_index.json of {self._model.repo} is no pipeline's: {error}") from error
        # Each is [library, class]; [null, null] for a part that is left out; other values are settings.
        return [name for name, part in parts.items() if isinstance(part, list) and any(part)]

    def _pinned_files(self, pinned: LockedModel, revision: Revision) -> tuple[HubFile, ...]:
        """The listing of the pinned files; other sizes or hashes than the lock's are refused unseen."""
        listed = {file.path: file for file in revision.files}
        for file in pinned.files:
            now = listed.get(file.path)
            if now is None or now.size_bytes != file.size_bytes or now.sha256 not in (None, file.sha256):
                raise WeightsError(self._refused(pinned, file.path))
        return tuple(listed[file.path] for file in pinned.files)

    def _check_pin(self, pinned: LockedModel | None, fetched: WeightFile) -> None:
        if pinned is not None and fetched not in pinned.files:
            raise WeightsError(self._refused(pinned, fetched.path))

    def _refused(self, pinned: LockedModel, path: str) -> str:
        return (
            f"{path} of {pinned.repo} at commit {pinned.commit[:12]} is not what {self._lock_file} says: refused; "
            "find out why the hub changed a commit before you `--update`"
        )

    def _record(self, entry: LockedModel) -> None:
        """Write the entry to the user's lock file and to the cache's own."""
        for path in (self._lock_file, cache_lock(self._cache)):
            # Two pulls at once would each write back what the other has not read.
            name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
            with self._cache.locked(f"lock-{name}"):
                lock = read_lock(path)
                if entry not in lock.models:
                    write_lock(path, lock.with_entry(entry))


def _clear_all_but(folder: Path, files: tuple[HubFile, ...]) -> None:
    """Remove what an earlier, failed pull left and this one does not fetch."""
    wanted = {file.path for file in files}
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
