"""The streams, buckets and consumers Headrace needs: declared here, created where missing, refused where different.

A setting that differs is never changed silently: somebody chose it, or another program owns the stream.
"""

import contextlib
from collections.abc import Iterator

import msgspec
import nats.js.errors
from nats.js import api

from headrace_contracts.errors import BrokerForbidden, BrokerTooOld, BrokerTooSmall, TopologyDrift, UnknownModel
from headrace_contracts.names import ARRIVALS_FROM, ARRIVALS_TO, Bucket, Lane, Stream, consumer_filter, consumer_name
from headrace_storage.connection import Connection
from headrace_storage.drift import differences

DAY_S = 86_400.0
ACK_WAIT_S = 30.0
"""A worker's lease on a job. Shorter finds a dead worker sooner; a pause this long has the job run twice."""

HEARTBEAT_TTL_S = 15.0
"""A worker that has not spoken for this long is gone."""


# What the server answers where a stream's `max_bytes` is more than its storage, its memory or an account's share of
# them; in a cluster, where no server has so much.
_NO_ROOM = frozenset({10047, 10028, 10002, 10023, 10005})

# The first with all that streams use: batches that are stored whole or not at all (`allow_atomic`).
_FIRST_VERSION = (2, 12, 0)
_NO_VERSION = (0, 0, 0)

RESULTS_KEPT_S = 7 * DAY_S
"""A result and the files it names are gone after it."""

ACCOUNTS_KEPT_S = 31 * DAY_S
"""What workers cost is known for so long."""

LEASE_TTL_S = 10.0
"""A leader that has not renewed its lease for this long is replaced. Shorter: a slow disk costs the leadership."""


class StorageLimits(msgspec.Struct, frozen=True):
    """Bytes each stream may hold. A full stream refuses new messages; nothing stored is dropped for it."""

    jobs_bytes: int = 2 << 30
    results_bytes: int = 4 << 30
    dead_bytes: int = 1 << 30
    events_bytes: int = 128 << 20
    logs_bytes: int = 64 << 20
    jobs_per_subject: int = 100_000
    """Most waiting and running jobs of one tenant, model and lane."""
    message_bytes: int = 8 << 20
    replicas: int = 1


def stream_configs(limits: StorageLimits) -> list[api.StreamConfig]:
    """The streams."""
    return [
        api.StreamConfig(
            name=Stream.JOBS,
            subjects=["jobs.*.*.*"],
            retention=api.RetentionPolicy.WORK_QUEUE,
            storage=api.StorageType.FILE,
            # With `old`, and per subject without the flag, a full queue would drop jobs it had accepted.
            discard=api.DiscardPolicy.NEW,
            discard_new_per_subject=True,
            max_msgs_per_subject=limits.jobs_per_subject,
            max_bytes=limits.jobs_bytes,
            max_msg_size=limits.message_bytes,
            duplicate_window=120.0,
            allow_direct=True,
            allow_atomic=True,
            # So that a scaler hears of a job at once, and of nothing in it.
            republish=api.RePublish(src=ARRIVALS_FROM, dest=ARRIVALS_TO, headers_only=True),
            num_replicas=limits.replicas,
        ),
        api.StreamConfig(
            name=Stream.RESULTS,
            subjects=["results.*.*.*"],
            retention=api.RetentionPolicy.LIMITS,
            storage=api.StorageType.FILE,
            # One message per subject, and never another in its place: the broker itself keeps a result final.
            discard=api.DiscardPolicy.NEW,
            discard_new_per_subject=True,
            max_msgs_per_subject=1,
            max_bytes=limits.results_bytes,
            max_age=RESULTS_KEPT_S,
            allow_direct=True,
            num_replicas=limits.replicas,
        ),
        # A token a message would cost a disk sync each, and an event is worth nothing after the result.
        _in_memory(Stream.EVENTS, "events.*.*.*.*", limits.events_bytes, 3600.0, limits.replicas),
        api.StreamConfig(
            name=Stream.DEAD,
            subjects=["dead.*.*.*"],
            retention=api.RetentionPolicy.LIMITS,
            storage=api.StorageType.FILE,
            discard=api.DiscardPolicy.NEW,
            max_bytes=limits.dead_bytes,
            max_age=30 * DAY_S,
            allow_direct=True,
            num_replicas=limits.replicas,
        ),
        _alerts_config(limits),
        # Lines are worth no disk sync, and no job waits for room for them.
        _in_memory(Stream.LOGS, "logs.*.*.*", limits.logs_bytes, DAY_S, limits.replicas),
    ]


def _alerts_config(limits: StorageLimits) -> api.StreamConfig:
    """Of all that is told, the newest is what counts: a full stream drops the oldest."""
    return api.StreamConfig(
        name=Stream.ALERTS,
        subjects=["alerts.*.*"],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.OLD,
        max_bytes=64 << 20,
        max_age=DAY_S,
        allow_direct=True,
        num_replicas=limits.replicas,
    )


def _in_memory(stream: Stream, subjects: str, max_bytes: int, max_age_s: float, replicas: int) -> api.StreamConfig:
    """Best effort: what it holds ends with the broker, and the oldest makes place."""
    return api.StreamConfig(
        name=stream,
        subjects=[subjects],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.MEMORY,
        discard=api.DiscardPolicy.OLD,
        max_bytes=max_bytes,
        max_age=max_age_s,
        allow_direct=True,
        num_replicas=replicas,
    )


def bucket_configs(limits: StorageLimits) -> list[api.KeyValueConfig]:
    """The key-value buckets."""
    return [
        api.KeyValueConfig(bucket=Bucket.MODELS, history=10, max_bytes=64 << 20, direct=True, replicas=limits.replicas),
        api.KeyValueConfig(
            bucket=Bucket.WORKERS,
            ttl=HEARTBEAT_TTL_S,
            storage=api.StorageType.MEMORY,
            max_bytes=16 << 20,
            direct=True,
            replicas=limits.replicas,
        ),
        api.KeyValueConfig(
            bucket=Bucket.ATTEMPTS, ttl=7 * DAY_S, max_bytes=256 << 20, direct=True, replicas=limits.replicas
        ),
        api.KeyValueConfig(
            bucket=Bucket.ACCOUNTS, ttl=ACCOUNTS_KEPT_S, max_bytes=64 << 20, direct=True, replicas=limits.replicas
        ),
        # On disk, so that the end of the broker ends no leadership.
        api.KeyValueConfig(bucket=Bucket.LEASES, ttl=LEASE_TTL_S, max_bytes=1 << 20, replicas=limits.replicas),
    ]


def bucket_stream_config(bucket: api.KeyValueConfig) -> api.StreamConfig:
    """The stream that the client makes for a bucket, to hold the one there is against."""
    return api.StreamConfig(
        name=f"KV_{bucket.bucket}",
        subjects=[f"$KV.{bucket.bucket}.>"],
        retention=api.RetentionPolicy.LIMITS,
        storage=bucket.storage or api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        max_msgs_per_subject=bucket.history,
        max_bytes=bucket.max_bytes,
        max_age=bucket.ttl,
        allow_direct=bool(bucket.direct),
        allow_rollup_hdrs=True,
        deny_delete=True,
        num_replicas=bucket.replicas,
    )


def topology_streams(limits: StorageLimits) -> list[api.StreamConfig]:
    """Every stream there must be: the six, and those behind the buckets."""
    return [*stream_configs(limits), *(bucket_stream_config(bucket) for bucket in bucket_configs(limits))]


def consumer_config(model: str, lane: Lane, ack_wait_s: float = ACK_WAIT_S) -> api.ConsumerConfig:
    """The durable pull consumer of one model and lane."""
    return api.ConsumerConfig(
        name=consumer_name(model, lane),
        durable_name=consumer_name(model, lane),
        filter_subject=consumer_filter(model, lane),
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ack_wait_s,
        # The server's own limit leaves a job in the stream that no counter shows; we count attempts ourselves.
        max_deliver=-1,
        max_ack_pending=10_000,
    )


async def ensure_topology(connection: Connection, limits: StorageLimits | None = None) -> None:
    """Create streams and buckets that are missing.

    Args:
        connection: the broker.
        limits: what they must be limited to; without any, whoever made them has decided (see `limits_there`).

    Raises:
        BrokerTooOld: it passes over settings that it does not know, and with them what they are for.
        TopologyDrift: one exists with other settings.
        BrokerTooSmall: one may grow to more than there is room for.
        BrokerUnavailable: no answer.
    """
    _refuse_old(connection)
    limits = limits or await limits_there(connection)
    for config in stream_configs(limits):
        with _may_be_forbidden(str(config.name)):
            await _ensure_stream(connection, config)
    for bucket in bucket_configs(limits):
        await _ensure_bucket(connection, bucket)


async def limits_there(connection: Connection) -> StorageLimits:
    """The limits and replicas of the streams there are, and the usual ones for those that are missing.

    An operator with other disks, or with a cluster, chooses others; workers only bind to what they find.
    """
    usual = StorageLimits()
    found: dict[Stream, api.StreamConfig] = {}
    for stream in Stream:
        with _may_be_forbidden(stream), connection.errors(), contextlib.suppress(nats.js.errors.NotFoundError):
            found[stream] = (await connection.js.stream_info(stream)).config
    jobs = found.get(Stream.JOBS)
    size = {stream: config.max_bytes for stream, config in found.items()}
    return StorageLimits(
        jobs_bytes=size.get(Stream.JOBS, usual.jobs_bytes),
        results_bytes=size.get(Stream.RESULTS, usual.results_bytes),
        dead_bytes=size.get(Stream.DEAD, usual.dead_bytes),
        events_bytes=size.get(Stream.EVENTS, usual.events_bytes),
        logs_bytes=size.get(Stream.LOGS, usual.logs_bytes),
        jobs_per_subject=jobs.max_msgs_per_subject if jobs else usual.jobs_per_subject,
        message_bytes=jobs.max_msg_size if jobs else usual.message_bytes,
        replicas=jobs.num_replicas if jobs else usual.replicas,
    )


def _refuse_old(connection: Connection) -> None:
    version = tuple(int(part) for part in connection.server_version.split("."))
    if _NO_VERSION < version < _FIRST_VERSION:
        needed = ".".join(map(str, _FIRST_VERSION))
        raise BrokerTooOld(connection.url, connection.server_version, needed)


@contextlib.contextmanager
def _may_be_forbidden(stream: str) -> Iterator[None]:
    """Rights that were given out before there were log lines name no stream for them; jobs need none."""
    try:
        yield
    except BrokerForbidden:
        if stream != Stream.LOGS:
            raise


async def ensure_consumers(connection: Connection, model: str, ack_wait_s: float = ACK_WAIT_S) -> None:
    """Create a model's consumers, one per lane. An admin's step: workers only bind.

    Raises:
        TopologyDrift: one exists with other settings.
    """
    for lane in Lane:
        wanted = consumer_config(model, lane, ack_wait_s)
        with connection.errors():
            try:
                info = await connection.js.consumer_info(Stream.JOBS, consumer_name(model, lane))
            except nats.js.errors.NotFoundError:
                await connection.js.add_consumer(Stream.JOBS, wanted)
                continue
        _refuse_drift(f"consumer {wanted.name}", wanted, info.config)


async def lease_of_consumers(connection: Connection, model: str) -> float:
    """Seconds for which a model's consumers lend a job: the shortest `ack_wait` of its lanes.

    Raises:
        UnknownModel: a consumer is missing.
    """
    leases = []
    for lane in Lane:
        with connection.errors():
            try:
                info = await connection.js.consumer_info(Stream.JOBS, consumer_name(model, lane))
            except nats.js.errors.NotFoundError as error:
                raise UnknownModel(model) from error
        leases.append(float(info.config.ack_wait or ACK_WAIT_S))
    return min(leases)


async def _ensure_stream(connection: Connection, wanted: api.StreamConfig) -> None:
    assert wanted.name is not None
    with connection.errors():
        try:
            info = await connection.js.stream_info(wanted.name)
        except nats.js.errors.NotFoundError:
            with _room_for(wanted):
                await connection.js.add_stream(wanted)
            return
    _refuse_drift(f"stream {wanted.name}", wanted, info.config)


async def _ensure_bucket(connection: Connection, bucket: api.KeyValueConfig) -> None:
    """Look before creating: a worker may look at every bucket and create few."""
    wanted = bucket_stream_config(bucket)
    with connection.errors():
        try:
            info = await connection.js.stream_info(str(wanted.name))
        except nats.js.errors.NotFoundError:
            try:
                with _room_for(wanted):
                    await connection.js.create_key_value(config=bucket)
            except nats.js.errors.BadRequestError as error:
                raise TopologyDrift(f"bucket {bucket.bucket}", (str(error.description),)) from error
            return
    _refuse_drift(f"bucket {bucket.bucket}", wanted, info.config)


@contextlib.contextmanager
def _room_for(stream: api.StreamConfig) -> Iterator[None]:
    try:
        yield
    except nats.js.errors.APIError as error:
        if error.err_code not in _NO_ROOM:
            raise
        raise BrokerTooSmall(f"stream {stream.name}", stream.max_bytes or 0, str(error.description)) from error


def _refuse_drift(
    what: str, wanted: api.StreamConfig | api.ConsumerConfig, found: api.StreamConfig | api.ConsumerConfig
) -> None:
    if differing := differences(wanted, found):
        raise TopologyDrift(what, differing)
