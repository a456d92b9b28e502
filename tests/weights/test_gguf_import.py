"""Importing GGUF files, by the command that workers run: a tiny model each time, the real one once per checkout."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from shared_cache import SMOLLM2, ensure_by_command, ready_in_shared_cache, shared_cache
from tiny_gguf import EMBEDDING, TOKENS, write_tiny_gguf

from headrace_contracts.errors import WeightsError
from headrace_contracts.model import EngineKind, ModelSpec, Task
from headrace_workers.weights import ensure_in_subprocess, locate
from headrace_workers.weights.manifest import first_damaged, read_manifest


def spec_of(path: Path, dtype: str | None = None) -> ModelSpec:
    return ModelSpec(
        name="tiny",
        task=Task.TEXT_GENERATION,
        engine=EngineKind.TRANSFORMERS,
        weights=f"path:{path}",
        options={} if dtype is None else {"dtype": dtype},
    )


def test_a_tiny_model_arrives_bit_by_bit(tmp_path: Path) -> None:
    tensors = write_tiny_gguf(tmp_path / "tiny.gguf")
    spec, cache = spec_of(tmp_path / "tiny.gguf"), tmp_path / "cache"
    assert locate(spec, cache) is None
    done = ensure_by_command(spec, cache)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert folder == locate(spec, cache)
    assert "unpacking tiny.gguf" in done.stderr

    written = load_file(folder / "model.safetensors")
    assert (written["model.embed_tokens.weight"] == tensors[EMBEDDING]).all()
    assert (written["model.layers.1.mlp.down_proj.weight"] == tensors["blk.1.ffn_down.weight"]).all()
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["vocab_size"] == len(TOKENS)
    assert "quantization_config" not in config

    manifest = read_manifest(folder)
    assert manifest is not None
    assert first_damaged(folder, manifest.files) is None
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.path for file in manifest.files}
    assert set(manifest.versions) == {"torch", "transformers", "gguf"}


async def test_the_dtype_is_the_one_asked_for(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    lines: list[str] = []
    spec = spec_of(tmp_path / "tiny.gguf", "bfloat16")
    folder = await ensure_in_subprocess(spec, tmp_path / "cache", lines.append)
    assert folder is not None
    with safe_open(folder / "model.safetensors", "np") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118 not a dict
    assert "writing safetensors" in lines
    assert locate(spec_of(tmp_path / "tiny.gguf", "float32"), tmp_path / "cache") is None


async def test_a_file_that_is_no_gguf_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    done = ensure_by_command(spec_of(tmp_path / "broken.gguf"), tmp_path / "cache")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"cannot import {tmp_path / 'broken.gguf'}: ")
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "cache" / "weights" / ".partial").iterdir()) == []
    with pytest.raises(WeightsError, match="cannot import"):
        await ensure_in_subprocess(spec_of(tmp_path / "broken.gguf"), tmp_path / "cache", lambda _: None)


async def test_canceling_ends_the_import(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    began = asyncio.Event()
    spec = spec_of(tmp_path / "tiny.gguf")
    before = set(psutil.Process().children())
    task = asyncio.create_task(ensure_in_subprocess(spec, tmp_path / "cache", lambda _: began.set()))
    async with asyncio.timeout(60):
        await began.wait()
    [importing] = set(psutil.Process().children()) - before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not importing.is_running()
    assert locate(spec, tmp_path / "cache") is None


SPEAK = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
turn = [{"role": "user", "content": "What is the capital of France?"}]
tokens = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**tokens, max_new_tokens=12, do_sample=False)[0, tokens["input_ids"].shape[1]:]
print(tokenizer.decode(answer))
"""


@pytest.mark.models
def test_the_real_model_is_imported_once_and_speaks() -> None:
    folder = ready_in_shared_cache(SMOLLM2)
    assert locate(SMOLLM2, shared_cache()) == folder
    again = ensure_by_command(SMOLLM2, shared_cache())
    assert "unpacking" not in again.stderr
    said = subprocess.run([sys.executable, "-c", SPEAK, str(folder)], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "The capital of France is Paris.<|im_end|>"
