"""`locate` and `ensure`: a model file in, a local folder out that its engine can load."""

from collections.abc import Callable
from pathlib import Path

from headrace_contracts.errors import WeightsError
from headrace_contracts.model import ModelSpec
from headrace_workers.weights.cache import CacheKey, Progress, WeightCache, silent
from headrace_workers.weights.gguf_import import IMPORT_VERSION, import_gguf
from headrace_workers.weights.lockfile import LockedModel, read_lock
from headrace_workers.weights.origin import Folder, Gguf, HubModel, origin

Importer = Callable[[Path, Path, str, Progress], dict[str, str]]


def locate(spec: ModelSpec, cache: Path, *, lock_file: Path | None = None) -> Path | None:
    """The folder with a model's weights if it is ready now, else None (also for a model without weights).

    Cheap: looks at names and sizes, never at content.

    Args:
        spec: the model.
        cache: folder of all cached things.
        lock_file: models.lock that pins hub models; None: whatever this cache last pulled.
    """
    weights = WeightCache(cache)
    try:
        match origin(spec):
            case None:
                return None
            case Folder(path=path):
                return path
            case Gguf() as gguf:
                ready = weights.ready(gguf_key(gguf))
                return ready and ready[0]
            case HubModel() as model:
                return _pulled(weights, model, lock_file)
    except WeightsError:
        return None


def ensure(
    spec: ModelSpec,
    cache: Path,
    progress: Progress = silent,
    *,
    lock_file: Path | None = None,
    importer: Importer = import_gguf,
) -> Path | None:
    """The folder with a model's weights, made ready if need be; None for a model without weights.

    Never goes to the network. An import takes twice the model's size in memory, which this process then keeps: a
    long-lived one runs `python -m headrace_workers.weights` instead.

    Args:
        spec: the model.
        cache: folder of all cached things.
        progress: told what takes time.
        lock_file: models.lock that pins hub models; None: whatever this cache last pulled.
        importer: unpacks a GGUF file into a folder.

    Raises:
        WeightsError: says what is wrong and what to do.
    """
    weights = WeightCache(cache)
    match origin(spec):
        case None:
            return None
        case Folder(path=path):
            return path
        case Gguf(path=path, dtype=dtype) as gguf:
            folder, _ = weights.build(gguf_key(gguf), lambda out: importer(path, out, dtype, progress), progress)
            return folder
        case HubModel() as model:
            pulled = _pulled(weights, model, lock_file)
            if pulled is None:
                raise WeightsError(
                    f"the weights of {model.repo} are not in {weights.folder}: "
                    "run `headrace models pull` with this model's file first"
                )
            return pulled


def gguf_key(gguf: Gguf) -> CacheKey:
    """The cache folder of an imported GGUF file; another file at the same path gets another one."""
    found = gguf.path.stat()
    options = {
        "dtype": gguf.dtype,
        "size_bytes": str(found.st_size),
        "modified_ns": str(found.st_mtime_ns),
        "import_version": str(IMPORT_VERSION),
    }
    return CacheKey(f"{gguf.path.stem}-{gguf.dtype}", gguf.source, options)


def hub_key(entry: LockedModel) -> CacheKey:
    """The cache folder of a pinned hub model."""
    options = {"layout": str(entry.layout), "variant": entry.variant or "", "remote_code": str(entry.remote_code)}
    return CacheKey(entry.repo.replace("/", "--"), f"hub:{entry.repo}@{entry.commit}", options)


def cache_lock(weights: WeightCache) -> Path:
    """The cache's own lock file: what was last pulled into it."""
    return weights.folder / "models.lock"


def _pulled(weights: WeightCache, model: HubModel, lock_file: Path | None) -> Path | None:
    entry = read_lock(lock_file or cache_lock(weights)).find(model)
    ready = weights.ready(hub_key(entry)) if entry else None
    if entry is None or ready is None:
        return None
    folder, manifest = ready
    return folder if manifest.files == entry.files else None
