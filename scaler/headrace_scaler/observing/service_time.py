"""How long a worker is busy with one job of a model, measured from what workers account for. No I/O."""

from collections.abc import Iterable

import msgspec

from headrace_contracts.heartbeat import Account, WorkerStatus

# Weight of what was known before against each new job. Larger is steadier, smaller follows a change of the work.
MEMORY_JOBS = 50.0


class _Measured(msgspec.Struct, frozen=True):
    """Busy seconds and jobs, both fading with every new job."""

    busy_s: float = 0.0
    jobs: float = 0.0

    def after(self, busy_s: float, jobs: int) -> "_Measured":
        keep = MEMORY_JOBS / (MEMORY_JOBS + jobs)
        return _Measured(self.busy_s * keep + busy_s, self.jobs * keep + jobs)


class ServiceTimes:
    """Seconds of a worker per job, for each model, lately."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], Account] = {}
        self._measured: dict[str, _Measured] = {}

    def update(self, statuses: Iterable[WorkerStatus]) -> None:
        """Take in the heartbeats of all workers; those that are gone are forgotten."""
        present = {}
        for status in statuses:
            for engine in status.engines:
                key = (status.id, engine.model)
                before, now = self._last.get(key, Account()), engine.account
                present[key] = now
                jobs, busy_s = now.jobs - before.jobs, now.busy_s - before.busy_s
                if jobs > 0 and busy_s >= 0:
                    measured = self._measured.get(engine.model, _Measured())
                    self._measured[engine.model] = measured.after(busy_s, jobs)
                elif jobs == 0:
                    present[key] = before  # what a running job takes counts when it has ended
        self._last = present

    def of(self, model: str) -> float | None:
        """Seconds per job; None while no job of the model was seen to end."""
        measured = self._measured.get(model)
        return measured.busy_s / measured.jobs if measured is not None and measured.jobs else None
