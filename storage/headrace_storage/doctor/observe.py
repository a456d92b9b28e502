"""Look at a broker: every question `headrace doctor` asks of it, and nothing that changes it."""

import asyncio
from typing import Any

import msgspec
from nats.js import api

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerUnavailable, HeadraceError, InvalidSpec
from headrace_contracts.names import BLOB_BUCKET, BLOB_STREAM, Bucket, Lane, Stream, consumer_name
from headrace_contracts.settings import NatsSettings
from headrace_storage.connection import Connection
from headrace_storage.doctor.asking import Silence, ask
from headrace_storage.doctor.monitoring import look_at_servers
from headrace_storage.doctor.observation import ConsumerSeen, Monitoring, Observation, Sight, StreamSeen
from headrace_storage.drift import differences
from headrace_storage.registry import model_names
from headrace_storage.topology import StorageLimits, consumer_config, limits_there, topology_streams
from headrace_storage.workers import list_workers

# The object store's stream; its size may be chosen.
_BLOBS = api.StreamConfig(
    name=BLOB_STREAM,
    subjects=[f"$O.{BLOB_BUCKET}.C.>", f"$O.{BLOB_BUCKET}.M.>"],
    retention=api.RetentionPolicy.LIMITS,
    storage=api.StorageType.FILE,
    discard=api.DiscardPolicy.NEW,
    allow_rollup_hdrs=True,
    allow_direct=True,
)


async def observe(
    connection: Connection, settings: NatsSettings, clock: Clock, limits: StorageLimits | None = None
) -> Observation:
    """Everything but what has to be tried out: see `probe` for the object store and the credentials' rights."""
    seen = await observe_server(connection, settings)
    streams = await _streams(connection, limits or await _usual_limits(connection))
    # Made when it is first opened, and not at all where blobs are in S3.
    blobs = await observe_stream(connection, _BLOBS)
    denied = {stream.name for stream in streams if stream.sight is Sight.DENIED}
    models, unseen = (None, "denied") if f"KV_{Bucket.MODELS}" in denied else await _models(connection)
    return msgspec.structs.replace(
        seen,
        clock_ahead_s=await _clock_ahead(connection, clock, streams),
        streams=(*streams, blobs) if blobs.sight is Sight.THERE else streams,
        blobs_sight=blobs.sight,
        models=models,
        models_unseen=unseen,
        consumers=await observe_consumers(connection, models or ()),
        engines=() if f"KV_{Bucket.WORKERS}" in denied else await _engines(connection),
    )


async def observe_server(connection: Connection, settings: NatsSettings) -> Observation:
    """The server alone: its version, and how it keeps what it acknowledges."""
    monitoring = await look_at_servers(connection, settings.monitor_url)
    return Observation(
        url=connection.url,
        version=connection.server_version,
        max_payload_bytes=connection.max_payload_bytes,
        monitoring=monitoring if isinstance(monitoring, Monitoring) else None,
        monitoring_unseen="" if isinstance(monitoring, Monitoring) else monitoring,
    )


async def observe_stream(connection: Connection, wanted: api.StreamConfig) -> StreamSeen:
    """One stream, held against the one we want."""
    name = str(wanted.name)
    # Only JOBS has a limit for each subject that a client meets, and few subjects.
    payload = b'{"subjects_filter":"jobs.>"}' if name == Stream.JOBS else b""
    answer = await ask(connection, f"$JS.API.STREAM.INFO.{name}", payload)
    if isinstance(answer, Silence):
        return StreamSeen(name, Sight.DENIED)
    if "error" in answer:
        return StreamSeen(name, Sight.MISSING)
    found = api.StreamConfig.from_response(answer["config"])
    state = answer["state"]
    fullest, messages = max((state.get("subjects") or {}).items(), key=lambda item: item[1], default=("", 0))
    return StreamSeen(
        name=name,
        sight=Sight.THERE,
        differences=differences(wanted, found),
        drops_oldest=found.discard == api.DiscardPolicy.OLD and wanted.discard == api.DiscardPolicy.NEW,
        in_memory=found.storage == api.StorageType.MEMORY,
        used_bytes=int(state["bytes"]),
        max_bytes=int(found.max_bytes if found.max_bytes is not None else -1),
        fullest_subject=str(fullest),
        fullest_messages=int(messages),
        max_messages_per_subject=int(found.max_msgs_per_subject or -1),
    )


async def observe_consumers(connection: Connection, models: tuple[str, ...]) -> tuple[ConsumerSeen, ...]:
    """The consumers of some models."""
    places = [(model, lane) for model in models for lane in Lane]
    return tuple(await asyncio.gather(*(_consumer(connection, model, lane) for model, lane in places)))


async def _consumer(connection: Connection, model: str, lane: Lane) -> ConsumerSeen:
    name = consumer_name(model, lane)
    answer = await ask(connection, f"$JS.API.CONSUMER.INFO.{Stream.JOBS}.{name}")
    if isinstance(answer, Silence):
        return ConsumerSeen(name, model, lane, Sight.DENIED)
    if "error" in answer:
        return ConsumerSeen(name, model, lane, Sight.MISSING)
    found = api.ConsumerConfig.from_response(answer["config"])
    ack_wait_s = float(found.ack_wait or 0)
    return ConsumerSeen(
        name=name,
        model=model,
        lane=lane,
        sight=Sight.THERE,
        differences=differences(consumer_config(model, lane, ack_wait_s), found),
        ack_wait_s=ack_wait_s,
        waiting=int(answer.get("num_pending", 0)),
    )


async def _usual_limits(connection: Connection) -> StorageLimits:
    """The usual ones, with as many copies as the queue has: on a cluster, every stream must have those."""
    try:
        return StorageLimits(replicas=(await limits_there(connection)).replicas)
    except HeadraceError:  # what cannot be seen is said stream by stream
        return StorageLimits()


async def _streams(connection: Connection, limits: StorageLimits) -> tuple[StreamSeen, ...]:
    return tuple(await asyncio.gather(*(observe_stream(connection, wanted) for wanted in topology_streams(limits))))


async def _models(connection: Connection) -> tuple[tuple[str, ...] | None, str]:
    try:
        return await model_names(connection), ""
    except (BrokerUnavailable, InvalidSpec) as error:
        return None, str(error)


async def _engines(connection: Connection) -> tuple[Any, ...]:  # Any: pairs as in Observation
    try:
        workers = await list_workers(connection)
    except (BrokerUnavailable, msgspec.DecodeError):
        return ()
    return tuple((engine.model, engine.state) for worker in workers for engine in worker.engines)


async def _clock_ahead(connection: Connection, clock: Clock, streams: tuple[StreamSeen, ...]) -> float | None:
    """By how much the broker's clock is ahead: its time of an answer against the middle of the question."""
    there = next((stream.name for stream in streams if stream.sight is Sight.THERE), None)
    if there is None:
        return None
    before = clock.now()
    answer = await ask(connection, f"$JS.API.STREAM.INFO.{there}")
    after = clock.now()
    if isinstance(answer, Silence) or "ts" not in answer:
        return None
    stamped = msgspec.convert(answer["ts"], type(before))
    return float((stamped - before).total_seconds() - (after - before).total_seconds() / 2)
