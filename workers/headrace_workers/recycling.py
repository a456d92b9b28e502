"""When a healthy engine process is replaced: libraries leak. Pure, apart from the dice."""

import random

import msgspec

from headrace_contracts.model import Recycle

# Up to this share of a bound is taken off for each process, so that the workers of a model do not stop together.
JITTER = 0.1


class Bounds(msgspec.Struct, frozen=True):
    """What one process may reach; None: no bound."""

    jobs: float | None
    growth_bytes: float | None
    age_s: float | None

    @classmethod
    def draw(cls, recycle: Recycle, rng: random.Random) -> "Bounds":
        """Bounds of one process."""

        def lowered(bound: float) -> float | None:
            return bound * (1 - JITTER * rng.random()) if bound else None

        return cls(lowered(recycle.jobs), lowered(recycle.growth_bytes), lowered(recycle.age_s))

    def reached(self, jobs: int, growth_bytes: int, age_s: float) -> str | None:
        """Why the process is due, or None."""
        if self.jobs is not None and jobs >= self.jobs:
            return f"it has run {jobs} jobs"
        if self.growth_bytes is not None and growth_bytes >= self.growth_bytes:
            return f"it has grown by {growth_bytes >> 20} MiB"
        if self.age_s is not None and age_s >= self.age_s:
            return f"it is {age_s:.0f} s old"
        return None
