"""What a zygote has imported before its first fork: the engines' libraries and the whole worker."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter

import msgspec
import structlog

from headrace_contracts.model import EngineKind, ModelSpec
from headrace_telemetry.logs import configure_logs
from headrace_workers.engines.libraries import import_libraries
from headrace_workers.weights import locate

# What workers need beside their engines, though some import it only when they come to it.
_WORKER = ("headrace_workers.__main__", "headrace_workers.engine_process", "headrace_storage.blobs.s3")

_THREADS = Path("/proc/self/task")


def warm_up(kinds: Iterable[EngineKind], specs: Iterable[Path], cache: Path) -> tuple[str, ...]:
    """Import what engines and workers need; a library that is not installed is left out with a line in the log.

    Args:
        kinds: engines, for any of their models.
        specs: files of models, as JSON.
        cache: folder of the weight cache, for those models.

    Returns:
        The engines whose libraries are there.
    """
    configure_logs(component="zygote")
    log = structlog.get_logger()
    began = perf_counter()
    wanted: list[tuple[EngineKind, Path | None]] = [(kind, None) for kind in kinds]
    for path in specs:
        spec = msgspec.json.decode(path.read_bytes(), type=ModelSpec)
        wanted.append((spec.engine, locate(spec, cache.expanduser())))
    imported = set()
    for kind, weights in wanted:
        try:
            import_libraries(kind, weights)
        except ImportError as error:
            log.warning("zygote has no library for an engine", engine=kind, missing=error.name, error=str(error))
        else:
            imported.add(kind.value)
    for name in _WORKER:
        importlib.import_module(name)
    _one_torch_thread()
    threads = len(list(_THREADS.iterdir())) if _THREADS.exists() else 1
    if threads > 1:
        # Nothing of ours starts one. What it holds at the moment of a fork is held in the child for ever.
        log.warning("a library started threads in the zygote", threads=threads)
    log.info("zygote warm", engines=sorted(imported), import_s=round(perf_counter() - began, 3))
    return tuple(sorted(imported))


def _one_torch_thread() -> None:
    """A pool of threads that torch had started here would be waited for in vain in every child."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
