"""The bundled models on one thread of the CPU, and their weights."""

import asyncio
import os
from pathlib import Path

import msgspec
from recording import Bench

from headrace_contracts.model import Batching, ModelSpec, Resources
from headrace_local.models import find_model
from headrace_workers.engines.registry import make_engine
from headrace_workers.weights import ensure_in_subprocess

# Kept between runs, for the import of the language model takes 20 s. Removing it is always safe.
CACHE = Path(os.environ.get("HEADRACE_TEST_CACHE") or Path(__file__).parents[2] / ".headrace" / "test-cache")

BATCH = 4


def weights_of(spec: ModelSpec) -> Path:
    """The model's weights, ready to load."""
    folder = asyncio.run(ensure_in_subprocess(spec, CACHE, lambda _line: None))
    assert folder is not None
    return folder


def bundled(name: str, **changes: object) -> ModelSpec:
    """A bundled model's spec, on the CPU, with some of its fields changed."""
    device = Resources(device="cpu", threads=1)
    return msgspec.structs.replace(find_model(name), resources=device, batching=Batching(BATCH), **changes)


def bench(spec: ModelSpec, folder: Path) -> Bench:
    """The model in its engine, loaded."""
    return Bench(make_engine(spec.engine), spec, weights_of(spec), folder)
