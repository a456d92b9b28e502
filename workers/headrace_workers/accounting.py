"""What an engine's time goes to: each moment is exactly one of starting, busy or idle, and each busy one is shared.

    starting   no engine is ready: the start of the worker, and of every engine process after the first
    busy       at least one job is in the engine; with k of them, each has a k-th of the moment
    idle       it is ready, and no job is in

So the shares of all jobs add up to the busy time, and the three to the time since the start. Knows nothing of prices.
"""

from headrace_contracts.clock import Clock
from headrace_contracts.heartbeat import Account


class EngineAccount:
    """Counts the time of one engine. What happens to the engine is told by the methods, at the moment it happens."""

    def __init__(self, clock: Clock, began_at: float | None = None) -> None:
        """`began_at`: since when time counts, on the monotonic clock; None: from now on."""
        self._clock = clock
        self._counted_to = clock.monotonic() if began_at is None else began_at
        self._total = Account()
        self._ready = False
        # What a job that was in all the time would have had: a share is the difference between two readings.
        self._share_s = 0.0
        self._entered: dict[str, float] = {}
        self._left: dict[str, float] = {}

    @property
    def total(self) -> Account:
        """Everything up to now."""
        self._count()
        return self._total

    def ready(self) -> None:
        """An engine is ready."""
        self._count()
        self._ready = True

    def down(self) -> None:
        """The engine is gone, and with it whatever was in."""
        self._count()
        self._ready = False
        for run_id in list(self._entered):
            self.leave(run_id)

    def enter(self, run_id: str) -> None:
        """The engine began a job."""
        self._count()
        self._entered.setdefault(run_id, self._share_s)

    def leave(self, run_id: str) -> None:
        """The engine is done with a job; nothing if it is not in."""
        if run_id in self._entered:
            self._count()
            self._left[run_id] = self._share_s - self._entered.pop(run_id)
            self._total = _plus(self._total, jobs=1)

    def take_share(self, run_id: str) -> float | None:
        """Seconds that a job had of the engine; None if it was not in. Asked once, and after its end."""
        self.leave(run_id)
        return self._left.pop(run_id, None)

    def _count(self) -> None:
        now = self._clock.monotonic()
        passed_s, self._counted_to = now - self._counted_to, now
        if self._entered:
            self._share_s += passed_s / len(self._entered)
            self._total = _plus(self._total, busy_s=passed_s)
        elif self._ready:
            self._total = _plus(self._total, idle_s=passed_s)
        else:
            self._total = _plus(self._total, starting_s=passed_s)


def difference(later: Account, earlier: Account) -> Account:
    """What went on between two readings."""
    return Account(
        later.starting_s - earlier.starting_s,
        later.busy_s - earlier.busy_s,
        later.idle_s - earlier.idle_s,
        later.jobs - earlier.jobs,
    )


def _plus(
    account: Account, starting_s: float = 0.0, busy_s: float = 0.0, idle_s: float = 0.0, jobs: int = 0
) -> Account:
    return Account(
        account.starting_s + starting_s, account.busy_s + busy_s, account.idle_s + idle_s, account.jobs + jobs
    )
