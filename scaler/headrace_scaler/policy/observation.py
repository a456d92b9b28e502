"""What the policy is told: the queue, the workers and the places for workers, as values of one moment.

Times are seconds of the observer's monotonic clock, unless they are called `..._at` with a date.
"""

import msgspec

from headrace_contracts.cost import SlotKind
from headrace_contracts.heartbeat import WorkerPhase
from headrace_contracts.scaling import Scaling


class Need(msgspec.Struct, frozen=True):
    """What one worker of a model takes of a slot: `size` cores, or bytes of a GPU's memory (0: the whole GPU)."""

    kind: SlotKind
    size: int
    slot: str = ""
    """Only this slot will do, as for a model whose device is `cuda:1`; empty: any of the kind."""


class Slot(msgspec.Struct, frozen=True):
    """A place where workers can run: the cores of a machine, one GPU, or the share of a cluster."""

    id: str
    kind: SlotKind
    size: int
    """Cores of a CPU slot, or bytes of a GPU's memory."""
    free: int
    """What no worker has been given, and on a GPU no other program has taken."""
    quarantined: str = ""
    """Why nothing may be started here, as for a GPU that was lost; empty: it may."""


class WorkerView(msgspec.Struct, frozen=True):
    """One worker of one model."""

    id: str
    phase: WorkerPhase
    since: float
    """When it was ordered (starting) or since when it is idle; else of no meaning."""
    jobs: int = 0
    slot: str = ""
    need: Need = Need(SlotKind.CPU, 0)
    """What it takes of its slot."""
    ours: bool = True
    """The launcher started it; another's counts as capacity and is never stopped."""
    detail: str = ""


class FailedStart(msgspec.Struct, frozen=True):
    """A worker that ended before its model was ready, or whose start the launcher refused."""

    worker: str
    reason: str


class ModelView(msgspec.Struct, frozen=True):
    """One model: its queue and its workers."""

    name: str
    scaling: Scaling
    need: Need
    jobs_per_worker: int
    """What one engine runs at once."""
    load_timeout_s: float
    """`timeouts.load_s` of the model."""
    waiting: int
    """`num_pending` over its lanes."""
    held: int
    """`num_ack_pending` over its lanes: what workers hold, and what waits for its next attempt."""
    oldest_wait_s: float
    """Age of the oldest job that no worker holds; 0 if none waits."""
    arrival_rate: float
    """Jobs per second, lately."""
    service_s: float | None
    """Seconds of a worker's time that one job takes, lately; None: never measured."""
    workers: tuple[WorkerView, ...] = ()
    failed_starts: tuple[FailedStart, ...] = ()
    """Since the observation before."""
    version: str = ""
    """Changes when the model's entry does: workers of an older one are to be replaced when idle."""
    outdated: tuple[str, ...] = ()
    """Workers that run an older entry."""
    paused: bool = False
    """Every lane of it is paused on the broker."""


class Observation(msgspec.Struct, frozen=True):
    """Everything at one moment."""

    models: tuple[ModelView, ...]
    slots: tuple[Slot, ...]
