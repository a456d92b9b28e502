"""Which files of a hub repository a model needs: pure choices over a listing.

Never a pickle; one variant of the weights; no copies for other frameworks (ONNX, Flax, OpenVINO, GGUF).
"""

import re
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

import msgspec

from headrace_contracts.errors import WeightsError
from headrace_workers.weights.layout import Layout, layout_of, pickle_in_use, refusal
from headrace_workers.weights.origin import HubModel

_TEXT_SUFFIXES = frozenset({".jinja", ".json", ".model", ".tiktoken", ".txt"})

# unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors -> fp16
_WEIGHTS = re.compile(r"[^.]+(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?\.safetensors")
# unet/diffusion_pytorch_model.safetensors.index.fp16.json -> fp16
_INDEX = re.compile(r"[^.]+\.safetensors\.index(?:\.(?P<variant>\w+))?\.json")


class HubFile(msgspec.Struct, frozen=True):
    """One file as the hub lists it. Large files carry their sha256, small ones git's sha1 of the blob."""

    path: str
    size_bytes: int
    sha256: str | None
    git_sha1: str | None


def layout_wanted(model: HubModel, names: Collection[str]) -> Layout:
    """The format to take from a repository.

    Raises:
        WeightsError: it has none of ours, pickles only, or not the one the engine loads.
    """
    found = layout_of(names)
    if found is not None and model.layout in (None, found):
        return found
    pickled = pickle_in_use(names, found)
    if pickled is not None:
        raise WeightsError(refusal(model.repo, pickled))
    wanted = f"a {model.layout} model" if model.layout else "a diffusers, CTranslate2 or transformers model"
    raise WeightsError(f"{model.repo} holds no files of {wanted}: name a repository in that format")


def choose(
    model: HubModel, layout: Layout, files: Sequence[HubFile], components: Collection[str] = ()
) -> tuple[HubFile, ...]:
    """The files to fetch, in the order of the listing.

    Args:
        model: what is wanted.
        layout: format of the repository.
        files: the whole listing.
        components: of a pipeline: the folders that model_index.json names.

    Raises:
        WeightsError: weights are there as pickles only, or not in the variant.
    """
    folders = {"."} if layout is not Layout.DIFFUSERS else {".", *components}
    here = [file for file in files if str(PurePosixPath(file.path).parent) in folders]
    chosen: list[HubFile] = []
    for folder in sorted(folders):
        chosen += _of_folder(model, layout, [f for f in here if str(PurePosixPath(f.path).parent) == folder])
    pickled = pickle_in_use([f.path for f in here if not _beside_weights(f, chosen)], layout)
    if pickled is not None:
        raise WeightsError(refusal(model.repo, pickled))
    if model.variant is not None and not any(_variant(file) == model.variant for file in chosen):
        there = sorted({v for file in here if (v := _variant(file))})
        raise WeightsError(f"{model.repo} has no variant {model.variant!r}; it has: {', '.join(there) or 'none'}")
    return tuple(file for file in files if file in chosen)


def _of_folder(model: HubModel, layout: Layout, files: list[HubFile]) -> list[HubFile]:
    """The needed files of one folder: configuration, and weights in the variant if it has them, else plain."""
    weights = [file for file in files if _is_weights(file) and not _name(file).startswith("consolidated")]
    # A pipeline's root may carry the whole model once more, as one checkpoint file for other programs.
    if layout is Layout.DIFFUSERS and files and "/" not in files[0].path:
        weights = []
    variants = {_variant(file) for file in weights}
    wanted = model.variant if model.variant in variants else None
    if weights and wanted not in variants:
        there = ", ".join(sorted(v for v in variants if v))
        raise WeightsError(f"{model.repo} has weights only in the variants {there}: set options.variant to one of them")
    keep = [file for file in weights if _variant(file) == wanted]
    keep += [file for file in files if _is_configuration(file, model.remote_code)]
    if layout is Layout.CTRANSLATE2:
        keep = [f for f in keep if not _is_weights(f)] + [f for f in files if _name(f) == "model.bin"]
    return keep


def _is_weights(file: HubFile) -> bool:
    return bool(_WEIGHTS.fullmatch(_name(file)) or _INDEX.fullmatch(_name(file)))


def _is_configuration(file: HubFile, remote_code: bool) -> bool:
    suffix = PurePosixPath(file.path).suffix
    if _name(file).startswith(".") or _is_weights(file) or ".bin.index." in _name(file):
        return False
    return suffix in _TEXT_SUFFIXES or (remote_code and suffix == ".py")


def _variant(file: HubFile) -> str | None:
    match = _WEIGHTS.fullmatch(_name(file)) or _INDEX.fullmatch(_name(file))
    return match["variant"] if match else None


def _beside_weights(file: HubFile, chosen: list[HubFile]) -> bool:
    """Whether safetensors of the same folder were chosen, so that nothing else there is read."""
    folder = PurePosixPath(file.path).parent
    return any(c.path.endswith(".safetensors") and PurePosixPath(c.path).parent == folder for c in chosen)


def _name(file: HubFile) -> str:
    return PurePosixPath(file.path).name
