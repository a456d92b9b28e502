"""What the policy answers: for each model how many workers, and which to start, to drain and to end."""

from enum import StrEnum

import msgspec

from headrace_scaler.policy.state import State


class Blocked(StrEnum):
    """Why workers that are wanted are not started now."""

    NONE = ""
    PAUSED = "paused"
    """Every lane of the model is paused, so no worker would be given its jobs."""
    NEVER_FITS = "never_fits"
    """One worker needs more than any slot has."""
    CRASH_LOOP = "crash_loop"
    """Starts keep failing: one is tried at a time, ever more seldom."""
    BACKOFF = "backoff"
    """A start failed; the next one waits a little."""
    NO_SLOT = "no_slot"
    """Every slot that is large enough is taken."""
    MAX_WORKERS = "max_workers"
    """The work would occupy more workers than the model may have."""


class Stop(msgspec.Struct, frozen=True):
    """A worker to be ended: it was never ready in time, or is broken."""

    worker: str
    reason: str


class ModelDecision(msgspec.Struct, frozen=True):
    """What to do for one model."""

    model: str
    target: int
    """Workers wanted now, after all damping."""
    start: tuple[str, ...] = ()
    """Slot ids, one for each worker to start."""
    drain: tuple[str, ...] = ()
    """Ids of idle workers to drain, on the condition that they are idle still."""
    stop: tuple[Stop, ...] = ()
    reason: str = ""
    """For people, with the numbers; never empty."""
    blocked: Blocked = Blocked.NONE


class Decided(msgspec.Struct, frozen=True):
    """Decisions in the order of the observation, and what to hand in next time."""

    models: tuple[ModelDecision, ...]
    state: State
