"""Synthetic work: the input chooses how the engine behaves.

For measuring the queue without a model, and for faults that a real model shows only by accident.
"""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from headrace_contracts.limits import Limits, at_most


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


class SyntheticInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`steps` steps of `step_s` seconds, then `behaviour`."""

    behaviour: Behaviour = Behaviour.OK
    steps: Annotated[int, Meta(ge=1)] = 1
    step_s: Annotated[float, Meta(ge=0, le=60)] = 0.0
    output_bytes: Annotated[int, Meta(ge=0, le=64 * 1024 * 1024)] = 0
    """Size of an artifact to produce; 0 for none."""
    seed: Annotated[int, Meta(ge=0)] = 0
    """The artifact's bytes follow from it."""
    echo: str = ""
    """Returned as it is."""

    def check(self, limits: Limits) -> None:
        """Raise `InvalidInput` for the first field that is over a limit."""
        at_most("steps", self.steps, limits.max_steps)
        at_most("echo", len(self.echo), limits.max_prompt_chars, "characters")


class SyntheticOutput(msgspec.Struct, frozen=True):
    """What went in, and when the engine began (Unix seconds): for measuring the queue."""

    echo: str
    engine_started_at: float
