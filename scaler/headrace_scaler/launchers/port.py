"""What the scaler asks of a place where workers can run.

The scaler compares what it wants with `running()` and never counts on its own memory, so that it can be started anew,
and so that a platform which only takes a number of replicas fits: it starts one more, and tells by `running()` which.
Every adapter passes the same suite, `tests/scaler/test_launchers_conformance.py`.
"""

from typing import Protocol

import msgspec

from headrace_contracts.errors import HeadraceError
from headrace_scaler.policy.observation import Need, Slot

ENDED_WELL = "exit status 0"
"""`Launched.ended` of a worker that ended as it should."""


class LaunchError(HeadraceError):
    """A worker could not be started; the message says why and what to do."""


class Order(msgspec.Struct, frozen=True):
    """A worker to be started."""

    worker: str
    """Id it is to have in the WORKERS bucket; a platform that names its own may choose another. It can be stopped,
    forgotten and asked for again by this one all the same."""
    model: str
    slot: str
    """Where: the id of one of `slots()`."""
    need: Need


class Launched(msgspec.Struct, frozen=True):
    """A worker that was started here, now or by an earlier run of the scaler."""

    worker: str
    model: str
    slot: str
    need: Need
    ordered_at: float
    """Unix time of the order."""
    ended: str | None = None
    """How it ended, with its last words, as in `exit status 1: error: no such model`; None while it runs."""
    order: str = ""
    """Id it was ordered by, if the platform has named it otherwise: until then it was here under that one."""


class Launcher(Protocol):
    """A place where workers can run. Each call returns soon; none waits for a worker to be ready or gone.

    An async context manager: leaving it lets workers run on, so that the next run of the scaler finds them.
    """

    async def slots(self) -> tuple[Slot, ...]:
        """The places there are, and what is free of each after what runs.

        Raises:
            LaunchError: the platform does not answer.
        """
        ...

    async def running(self) -> tuple[Launched, ...]:
        """Every worker that was started and is not forgotten: at once after `start`, and after its end.

        One that was stopped may be missing as soon as it has ended, where the platform keeps nothing of it.

        Raises:
            LaunchError: the platform does not answer.
        """
        ...

    async def start(self, order: Order) -> None:
        """Start a worker. Asking again for one that is there does nothing.

        Raises:
            LaunchError: it cannot be started: the slot is unknown, quarantined or full, or the platform refuses.
        """
        ...

    async def stop(self, worker: str, grace_s: float) -> None:
        """SIGTERM, and SIGKILL if it is still there after `grace_s`; does not wait for it.

        Asking again changes nothing: the grace is that of the first time. Unknown or ended: does nothing.

        Raises:
            LaunchError: the platform does not answer.
        """
        ...

    async def forget(self, worker: str) -> None:
        """Drop what is kept of a worker that has ended; while it runs, do nothing.

        Raises:
            LaunchError: the platform does not answer.
        """
        ...
