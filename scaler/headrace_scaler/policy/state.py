"""What the policy remembers between two decisions: damping and failed starts, nothing that could be observed.

Losing it, as at a restart of the scaler, costs no job: delays begin anew, and a crash loop is tried again.
"""

import msgspec


class Level(msgspec.Struct, frozen=True):
    """A number of workers that was wanted, until a moment."""

    until: float
    workers: int


class Mark(msgspec.Struct, frozen=True):
    """Something that happened to a worker, and when."""

    worker: str
    at: float


class Starts(msgspec.Struct, frozen=True):
    """How the starts of a model went."""

    failures: int = 0
    """In a row, since the last start that succeeded."""
    rounds: int = 0
    """How often starts failed, those that were ordered together counted once."""
    failed_at: float = float("-inf")
    tried_at: float = float("-inf")
    """When a start was last ordered although the one before had failed."""
    last_reason: str = ""
    ready: tuple[str, ...] = ()
    """Workers that have been ready: another one that is ready now has just succeeded."""
    recovering: tuple[Mark, ...] = ()
    """Workers that were ready and load again, since when."""
    broken: tuple[Mark, ...] = ()
    """Workers whose failure is counted already."""
    stopped: tuple[Mark, ...] = ()
    """Workers that were ordered to be ended."""


class ModelState(msgspec.Struct, frozen=True):
    """What is remembered of one model."""

    name: str
    version: str = ""
    arrival_rate: float = 0.0
    """Mean over `target_wait_s`."""
    rate_at: float | None = None
    highs: tuple[Level, ...] = ()
    """Falling: the most workers wanted within `scale_down_delay_s`, and what was most after each."""
    lows: tuple[Level, ...] = ()
    """Rising: the fewest wanted within `scale_up_window_s`, and what was fewest after each."""
    worked_at: float = float("-inf")
    """When there last was any job."""
    scaled_up_at: float = float("-inf")
    scaled_down_at: float = float("-inf")
    leaving: tuple[Mark, ...] = ()
    """Idle workers that were told to drain and whose heartbeat does not say so yet."""
    starts: Starts = Starts()


class State(msgspec.Struct, frozen=True):
    """What is remembered of all models; `State()` is the start."""

    models: tuple[ModelState, ...] = ()
