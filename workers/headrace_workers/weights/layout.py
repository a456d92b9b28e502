"""The folder formats engines load as they are, told by file names; and the refusal of pickles.

Works on names (paths relative to the folder, with `/`), so that a local folder and a hub's listing follow one rule.
"""

from collections.abc import Collection
from enum import StrEnum
from pathlib import Path, PurePosixPath

from headrace_contracts.errors import WeightsError
from headrace_contracts.model import EngineKind


class Layout(StrEnum):
    """A format that an engine loads in place."""

    DIFFUSERS = "diffusers"
    """A pipeline: model_index.json and one folder per component."""
    CTRANSLATE2 = "ctranslate2"
    """model.bin (CTranslate2's own format, no pickle), config.json and a vocabulary."""
    TRANSFORMERS = "transformers"
    """config.json, *.safetensors and the tokenizer's files."""


LAYOUT_OF_ENGINE = {
    EngineKind.DIFFUSERS: Layout.DIFFUSERS,
    EngineKind.FASTER_WHISPER: Layout.CTRANSLATE2,
    EngineKind.TRANSFORMERS: Layout.TRANSFORMERS,
}

# Formats that `torch.load` unpickles: loading one can run any code its author put in.
PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})

# CTranslate2 files start with a small little-endian version; a zip or a pickle reads as a huge one.
_CTRANSLATE2_MAX_VERSION = 1000


def layout_of(names: Collection[str]) -> Layout | None:
    """The format of a folder with these files, or None if it is none of ours."""
    if "model_index.json" in names:
        return Layout.DIFFUSERS
    if "config.json" not in names:
        return None
    if any(name.endswith(".safetensors") and "/" not in name for name in names):
        return Layout.TRANSFORMERS
    return Layout.CTRANSLATE2 if "model.bin" in names else None


def pickle_in_use(names: Collection[str], layout: Layout | None) -> str | None:
    """The first pickle that a loader would have to read, as no safetensors lie beside it; None if there is none."""
    safe = {_folder(name) for name in names if name.endswith(".safetensors")}
    for name in sorted(names):
        if PurePosixPath(name).suffix not in PICKLE_SUFFIXES or _folder(name) in safe:
            continue
        # A pipeline is loaded from its components' folders; old checkpoints beside model_index.json are never read.
        if layout is Layout.CTRANSLATE2 or (layout is Layout.DIFFUSERS and "/" not in name):
            continue
        return name
    return None


def check_folder(folder: Path, engine: EngineKind) -> Layout:
    """The layout of a local folder that `engine` can load as it is.

    Raises:
        WeightsError: it holds pickles only, or under a false name, or another format than the engine loads.
    """
    names = files_below(folder)
    layout = layout_of(names)
    pickled = pickle_in_use(names, layout)
    if layout is Layout.CTRANSLATE2 and not _is_ctranslate2(folder / "model.bin"):
        pickled = "model.bin"
    if pickled is not None:
        raise WeightsError(refusal(str(folder), pickled))
    for name in names:
        if name.endswith(".safetensors") and not _may_be_safetensors(folder / name):
            claim = f"{name} is not in safetensors format, though it is called so: it may be a pickle"
            raise WeightsError(f"{folder}: {claim}")
    check_layout(str(folder), layout, engine)
    assert layout is not None
    return layout


def check_layout(where: str, layout: Layout | None, engine: EngineKind) -> None:
    """Refuse weights in another format than the engine loads.

    Raises:
        WeightsError: says what is there and what is needed.
    """
    wanted = LAYOUT_OF_ENGINE.get(engine)
    if wanted is None:
        raise WeightsError(f'engine `{engine}` loads no weights: set weights = "none"')
    if layout is not wanted:
        found = f"a {layout} model" if layout else "no model"
        raise WeightsError(f"{where} holds {found}, and engine `{engine}` loads {_NEEDS[wanted]}")


def refusal(where: str, pickled: str) -> str:
    """The sentence for weights that are a pickle."""
    return (
        f"{where}: {pickled} is a pickle, which can run code when it is loaded: "
        "use weights in safetensors (`save_pretrained` writes them), CTranslate2 or GGUF"
    )


def files_below(folder: Path) -> list[str]:
    """Names of all files below a folder; hidden ones are left out."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))


_NEEDS = {
    Layout.DIFFUSERS: "a diffusers pipeline (model_index.json and its folders)",
    Layout.CTRANSLATE2: "a CTranslate2 folder (model.bin, config.json)",
    Layout.TRANSFORMERS: "a transformers folder (config.json, *.safetensors) or a GGUF file",
}


def _folder(name: str) -> str:
    return str(PurePosixPath(name).parent)


def _is_ctranslate2(path: Path) -> bool:
    with path.open("rb") as file:
        return 1 <= int.from_bytes(file.read(4), "little") <= _CTRANSLATE2_MAX_VERSION


def _may_be_safetensors(path: Path) -> bool:
    """Whether the first eight bytes can be the length of a header: those of a pickle read as more than the file has."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    return len(start) < 8 or int.from_bytes(start, "little") <= size_bytes - 8
