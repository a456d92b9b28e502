"""What was seen of a broker: the record that every check reads. Plain values, no I/O."""

from enum import StrEnum

import msgspec

from headrace_contracts.heartbeat import EngineState
from headrace_contracts.names import Lane


class Sight(StrEnum):
    """Whether something of the broker's could be looked at."""

    THERE = "there"
    MISSING = "missing"
    DENIED = "denied"
    """These credentials may not ask, or nobody answered."""


class Monitoring(msgspec.Struct, frozen=True):
    """What the servers say of themselves, on their monitoring ports or to the system account."""

    source: str
    """Where it was asked."""
    sync_always: bool
    """Whether every server syncs a write before it acknowledges it."""
    storage_bytes: int
    """What JetStream keeps on the disk of the fullest server."""
    max_storage_bytes: int
    """The `max_file_store` of that server."""
    unhealthy: str = ""
    """Why a server calls itself unhealthy; empty if none does."""


class StreamSeen(msgspec.Struct, frozen=True):
    """One stream that must be there."""

    name: str
    sight: Sight
    differences: tuple[str, ...] = ()
    """Settings that are not ours; see `drift`."""
    drops_oldest: bool = False
    """Its discard policy is `old`: full, it drops what it accepted."""
    in_memory: bool = False
    used_bytes: int = 0
    max_bytes: int = -1
    fullest_subject: str = ""
    """Of JOBS only: the subject with the most messages."""
    fullest_messages: int = 0
    max_messages_per_subject: int = -1


class ConsumerSeen(msgspec.Struct, frozen=True):
    """The consumer of one model and lane."""

    name: str
    model: str
    lane: Lane
    sight: Sight
    differences: tuple[str, ...] = ()
    """Without the lease, which may be chosen."""
    ack_wait_s: float = 0.0
    waiting: int = 0


class Denial(msgspec.Struct, frozen=True):
    """Something these credentials may not do."""

    action: str
    """In words, as in `submit jobs`."""
    needed_by: str
    """Who needs it, as in `workers`."""


class Observation(msgspec.Struct, frozen=True):
    """Everything that was seen. What could not be seen is None, and a sentence beside it says why."""

    url: str
    version: str
    max_payload_bytes: int
    clock_ahead_s: float | None = None
    """By how much the broker's clock is ahead of ours."""
    monitoring: Monitoring | None = None
    monitoring_unseen: str = ""
    streams: tuple[StreamSeen, ...] = ()
    consumers: tuple[ConsumerSeen, ...] = ()
    models: tuple[str, ...] | None = None
    """Names in the registry."""
    models_unseen: str = ""
    engines: tuple[tuple[str, EngineState], ...] = ()
    """Model and state of every engine of every worker that is alive."""
    blobs_sight: Sight = Sight.MISSING
    """Of the stream that keeps blobs where there is no S3; it is made when it is first opened."""
    blobs_place: str = ""
    """Where the probe was put; empty if it was not tried."""
    blobs_failure: str | None = None
    """Why the probe of the object store failed; None if it did not."""
    denials: tuple[Denial, ...] = ()
