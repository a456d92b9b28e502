"""What is simulated: models with the behaviour of their workers, and jobs that arrive."""

import msgspec

from headrace_contracts.cost import SlotKind
from headrace_contracts.scaling import Scaling
from headrace_scaler.policy.observation import Need


class Interval(msgspec.Struct, frozen=True):
    """A span of virtual time, its end not included."""

    begin: float
    end: float

    def holds(self, at: float) -> bool:
        """Whether a moment is in it."""
        return self.begin <= at < self.end


class SimulatedModel(msgspec.Struct, frozen=True):
    """A model, and how its workers behave. Spreads are the sigma of a log-normal distribution with the given mean."""

    name: str
    scaling: Scaling
    need: Need = Need(SlotKind.CPU, 1)
    jobs_per_worker: int = 1
    """Jobs that one worker runs at once, each as fast as alone."""
    cold_start_s: float = 5.0
    """Mean time from the order of a worker until it is ready."""
    cold_start_spread: float = 0.0
    service_s: float = 1.0
    """Mean time of a job in the engine."""
    service_spread: float = 0.0
    load_timeout_s: float = 300.0
    exit_s: float = 0.5
    """From the order to drain or to end, or the last job, until the worker is gone and its slot free."""
    heartbeat_lag_s: float = 0.25
    """Age of what the policy sees of a worker."""
    crashes: tuple[Interval, ...] = ()
    """Workers that are ordered in these times end before they are ready."""
    crash_s: float = 2.0
    """How long such a worker takes to end."""
    hangs: tuple[Interval, ...] = ()
    """Workers that are ordered in these times never become ready and never end by themselves."""
    updates: tuple[float, ...] = ()
    """When the model's entry changes, so that workers that were ordered before are outdated."""
    retry_share: float = 0.0
    """Share of the jobs that fail once and are held for `retry_after_s` before they run again."""
    retry_after_s: float = 10.0


class Arrival(msgspec.Struct, frozen=True):
    """A job is submitted."""

    at: float
    model: str
