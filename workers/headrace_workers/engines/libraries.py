"""What an engine imports, down to the classes of one model: apart from loading, so that it can be done ahead of it.

Imports and reads configurations; makes no model, starts no thread, looks for no device.
"""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headrace_contracts.model import EngineKind

_MODULES = {
    EngineKind.DIFFUSERS: ("engines.diffusers", "engines.pipeline", "engines.pictures"),
    EngineKind.FASTER_WHISPER: ("engines.faster_whisper", "engines.mel", "engines.audio"),
    EngineKind.TRANSFORMERS: ("engines.transformers", "engines.text_decoder", "engines.text_prompt"),
    EngineKind.SYNTHETIC: ("engines.synthetic",),
}

# For whoever does not know the model yet: the classes most models are made of.
_USUAL = {
    EngineKind.DIFFUSERS: (
        ("diffusers", "StableDiffusionPipeline"),
        ("diffusers", "UNet2DConditionModel"),
        ("diffusers", "AutoencoderKL"),
        ("transformers", "CLIPTextModel"),
        ("transformers", "CLIPTokenizer"),
    ),
    EngineKind.TRANSFORMERS: (("transformers", "LlamaForCausalLM"),),
}

# What the libraries import in the middle of loading, whatever the model is.
_WHILE_LOADING = {
    EngineKind.DIFFUSERS: (
        ("diffusers", "guiders"),
        ("diffusers.pipelines.pipeline_loading_utils", "LOADABLE_CLASSES"),
        ("diffusers", "DDIMScheduler"),
    ),
}
_CONVERTING = (EngineKind.DIFFUSERS, EngineKind.TRANSFORMERS)

# Their classes are imported when they are first asked for.
_LAZY = ("diffusers", "transformers")


def import_libraries(kind: EngineKind, weights: Path | None) -> None:
    """Import everything that loading a model will need.

    Args:
        kind: the engine.
        weights: the model's folder, whose configuration names its classes; None: those that most models have.

    Raises:
        ImportError: the engine's library is not installed.
    """
    for name in _MODULES[kind]:
        importlib.import_module(f"headrace_workers.{name}")
    if kind is EngineKind.FASTER_WHISPER:
        importlib.import_module("faster_whisper")
    if kind is EngineKind.DIFFUSERS:
        # The formats that pictures are written in.
        importlib.import_module("PIL.Image").preinit()
    classes = [*(_USUAL.get(kind, ()) if weights is None else _classes_of(weights)), *_WHILE_LOADING.get(kind, ())]
    for library, name in classes:
        # A class that is not there, or that lacks a library of its own: loading will say so, and in better words.
        with contextlib.suppress(ImportError, AttributeError, RuntimeError):
            _touch(getattr(importlib.import_module(library), name))
    if kind in _CONVERTING:
        # A thousand patterns are compiled before a first model is loaded, for whichever model it is.
        with contextlib.suppress(ImportError, AttributeError):
            importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("none")


def _touch(found: object) -> None:
    """A scheduler asks for all that it could be exchanged with; what the library may load is a table of names."""
    for name in getattr(found, "_compatibles", ()):
        getattr(importlib.import_module("diffusers"), name, None)
    if isinstance(found, dict):
        for library, names in found.items():
            for name in names if library in _LAZY else ():
                getattr(importlib.import_module(library), name, None)


def _classes_of(weights: Path) -> Iterator[tuple[str, str]]:
    """Library and name of each class that the configurations in a folder of weights name."""
    index = _read(weights / "model_index.json")
    if isinstance(pipeline := index.get("_class_name"), str):
        yield "diffusers", pipeline
    for part in index.values():
        match part:
            case [str(library), str(name)] if library in _LAZY:
                yield library, name
    architectures = _read(weights / "config.json").get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        yield "transformers", str(name)


def _read(path: Path) -> dict[str, object]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError):
        return {}
