"""Engine by name. Imports an engine's module only when it is asked for: they bring heavy libraries."""

import random
from typing import Any, assert_never

from headrace_contracts.clock import SystemClock
from headrace_contracts.model import EngineKind
from headrace_workers.engines.base import Engine


def make_engine(kind: EngineKind) -> Engine[Any]:  # Any: each engine takes its own task's input
    """A new engine, nothing loaded."""
    seeds = random.SystemRandom()
    match kind:
        case EngineKind.DIFFUSERS:
            from headrace_workers.engines.diffusers import DiffusersEngine

            return DiffusersEngine(seeds)
        case EngineKind.FASTER_WHISPER:
            from headrace_workers.engines.faster_whisper import FasterWhisperEngine

            return FasterWhisperEngine()
        case EngineKind.TRANSFORMERS:
            from headrace_workers.engines.transformers import TransformersEngine

            return TransformersEngine(seeds)
        case EngineKind.SYNTHETIC:
            from headrace_workers.engines.synthetic import SyntheticEngine

            return SyntheticEngine(SystemClock())
        case _:
            assert_never(kind)
