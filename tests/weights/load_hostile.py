"""Load folders of weights, each as its engine would, and print what came of each: in a process that may be lost.

python load_hostile.py ENGINE FOLDER [ENGINE FOLDER ...]
"""

import sys
from pathlib import Path

from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.tasks.registry import Task
from headrace_workers.engines.registry import make_engine

TASKS = {
    EngineKind.DIFFUSERS: Task.TEXT_TO_IMAGE,
    EngineKind.FASTER_WHISPER: Task.SPEECH_TO_TEXT,
    EngineKind.TRANSFORMERS: Task.TEXT_GENERATION,
}


class Quiet:
    """A sink that nothing is told to."""

    def __getattr__(self, name: str):
        return lambda *arguments: None


for kind, folder in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    engine = EngineKind(kind)
    spec = ModelSpec("hostile", TASKS[engine], engine, weights=f"path:{folder}")
    try:
        loaded = make_engine(engine)
        loaded.load(spec, Path(folder), Quiet())
        loaded.warm_up()
    except Exception as error:
        print(" ".join(f"{type(error).__name__}: {error}".split()))
    else:
        print("loaded")
