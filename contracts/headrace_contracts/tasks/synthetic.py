"""Synthetic work: the input chooses how the engine behaves.

For measuring the queue without a model, and for faults that a real model shows only by accident.
"""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from headrace_contracts.errors import InvalidInput
from headrace_contracts.limits import Limits, at_most

# Larger artifacts have to be asked for by name, so that nobody fills a store by a typing error.
MAX_OUTPUT_BYTES = 64 << 20
MAX_HUGE_OUTPUT_BYTES = 256 << 20


class Behaviour(StrEnum):
    """What the engine does after its steps."""

    OK = "ok"
    ERROR = "error"
    """Raise an exception the engine did not foresee."""
    CRASH = "crash"
    """Die by a segmentation fault."""
    CRASH_ONCE = "crash_once"
    """Die in the first attempt, succeed in the second."""
    HANG = "hang"
    """Never return, with the interpreter lock held."""
    OUT_OF_MEMORY = "out_of_memory"
    """Raise `MemoryError`, as a library does that could not allocate."""
    MEMORY_HOG = "memory_hog"
    """Take `memory_bytes` for real until the kernel or a limit stops it; else give them back and succeed."""
    STICKY = "sticky"
    """A device error: raised now, and by every later call in this process."""
    LEAK = "leak"
    """Succeed, and keep `memory_bytes` of resident memory for good."""
    NAN = "nan"
    """Compute an output that is not a number."""
    EMPTY = "empty"
    """Produce no artifact although `output_bytes` were asked for."""
    HUGE_OUTPUT = "huge_output"
    """Succeed with an artifact that may be larger than all others'."""
    IGNORES_CANCEL = "ignores_cancel"
    """Go through all steps in one call that never asks whether it should stop; then succeed."""


class SyntheticInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`steps` steps of `step_s` seconds, then `behaviour`."""

    behaviour: Behaviour = Behaviour.OK
    steps: Annotated[int, Meta(ge=1)] = 1
    step_s: Annotated[float, Meta(ge=0, le=60)] = 0.0
    output_bytes: Annotated[int, Meta(ge=0, le=MAX_HUGE_OUTPUT_BYTES)] = 0
    """Size of an artifact to produce; 0 for none."""
    memory_bytes: Annotated[int, Meta(ge=0)] = 0
    """What `memory_hog` takes and `leak` keeps."""
    chunk_chars: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    """Characters of text that every step streams; 0 for none."""
    seed: Annotated[int, Meta(ge=0)] = 0
    """The artifact's bytes follow from it."""
    echo: str = ""
    """Returned as it is."""

    def check(self, limits: Limits) -> None:
        """Raise `InvalidInput` for the first field that is over a limit."""
        at_most("steps", self.steps, limits.max_steps)
        at_most("echo", len(self.echo), limits.max_prompt_chars, "characters")
        if self.output_bytes > MAX_OUTPUT_BYTES and self.behaviour is not Behaviour.HUGE_OUTPUT:
            problem = f"more than {MAX_OUTPUT_BYTES} bytes need `behaviour` {Behaviour.HUGE_OUTPUT.value}"
            raise InvalidInput("input.output_bytes", problem)


class SyntheticOutput(msgspec.Struct, frozen=True):
    """What went in, and when the engine began (Unix seconds): for measuring the queue."""

    echo: str
    engine_started_at: float
