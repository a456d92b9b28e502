"""Weights that are programs do not run: pickles under any name, and Python code beside the weights."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace_contracts.errors import WeightsError
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.tasks.registry import Task
from headrace_workers.weights.ready import ensure

SHAPES = Path(__file__).parents[2] / "compose" / "headrace_local" / "models" / "tiny-shapes"
TASKS = {
    EngineKind.DIFFUSERS: Task.TEXT_TO_IMAGE,
    EngineKind.FASTER_WHISPER: Task.SPEECH_TO_TEXT,
    EngineKind.TRANSFORMERS: Task.TEXT_GENERATION,
}
EMPTY_SAFETENSORS = b"\x02\0\0\0\0\0\0\0{}"
LLAMA = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "vocab_size": 8}


class Marks:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch {self._marker}",))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture
def bomb(marker: Path) -> bytes:
    return pickle.dumps(Marks(marker))


def test_the_bomb_goes_off(marker: Path, bomb: bytes) -> None:
    """Or the tests below would prove nothing."""
    pickle.loads(bomb)
    assert marker.exists()


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        (EngineKind.TRANSFORMERS, "pytorch_model.bin"),
        (EngineKind.TRANSFORMERS, "model.pt"),
        (EngineKind.TRANSFORMERS, "model.ckpt"),
        (EngineKind.TRANSFORMERS, "model.safetensors"),
        (EngineKind.TRANSFORMERS, "model-00001-of-00002.safetensors"),
        (EngineKind.FASTER_WHISPER, "model.bin"),
        (EngineKind.DIFFUSERS, "unet/diffusion_pytorch_model.bin"),
        (EngineKind.DIFFUSERS, "unet/diffusion_pytorch_model.safetensors"),
    ],
)
def test_a_pickle_is_refused_under_any_name(
    tmp_path: Path, marker: Path, bomb: bytes, engine: EngineKind, name: str
) -> None:
    folder = tmp_path / "weights"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(bomb)
    (folder / ("model_index.json" if engine is EngineKind.DIFFUSERS else "config.json")).write_text("{}")
    spec = ModelSpec("m", TASKS[engine], engine, weights=f"path:{folder}")
    with pytest.raises(WeightsError, match=f"{name} is (a pickle|not in safetensors format)"):
        ensure(spec, tmp_path / "cache")
    assert not marker.exists()


def write(folder: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def shapes_with(folder: Path, index: dict[str, object], files: dict[str, object]) -> Path:
    shutil.copytree(SHAPES, folder)
    whole = json.loads((SHAPES / "model_index.json").read_text())
    return write(folder, {"model_index.json": {**whole, **index}, **files})


@pytest.mark.slow
def test_engines_run_no_code_that_comes_with_weights(tmp_path: Path, marker: Path, bomb: bytes) -> None:
    """The last gate, should a folder pass the first look: each is given to its engine, as it is."""
    code = f"open({str(marker)!r}, 'w')\n".encode()
    auto_map = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M", "AutoTokenizer": ["own.T", None]}
    with_code = {"config.json": {"model_type": "unheard-of", "auto_map": auto_map}, "own.py": code}
    shapes_code = code + b"from diffusers import *\nclass Own(StableDiffusionPipeline): pass\n"
    folders = {
        "auto_map": write(tmp_path / "auto_map", {**with_code, "model.safetensors": EMPTY_SAFETENSORS}),
        "pipeline": shapes_with(tmp_path / "pipeline", {"_class_name": ["own", "Own"]}, {"own.py": shapes_code}),
        "component": shapes_with(tmp_path / "component", {"unet": ["own", "Own"]}, {"unet/own.py": shapes_code}),
        "bin": write(tmp_path / "bin", {"config.json": LLAMA, "pytorch_model.bin": bomb}),
        "renamed": write(tmp_path / "renamed", {"config.json": LLAMA, "model.safetensors": bomb}),
        "beside": write(
            tmp_path / "beside",
            {"config.json": LLAMA, "adapter.safetensors": EMPTY_SAFETENSORS, "pytorch_model.bin": bomb},
        ),
    }
    engine_of = {"pipeline": EngineKind.DIFFUSERS, "component": EngineKind.DIFFUSERS}
    arguments = [
        word for name, folder in folders.items() for word in (engine_of.get(name, EngineKind.TRANSFORMERS), str(folder))
    ]
    ran = subprocess.run(
        [sys.executable, Path(__file__).with_name("load_hostile.py"), *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = dict(zip(folders, ran.stdout.splitlines(), strict=True))
    assert "loaded" not in said.values()
    assert not marker.exists(), said
    for name in ("auto_map", "pipeline", "component"):
        assert "set `allow_remote_code = true` in its model file" in said[name]
        assert "trust_remote_code" not in said[name]
