"""The checks a worker makes before it takes a job: could this broker lose, drop or hide what it accepted?"""

import asyncio

import msgspec

from headrace_contracts.settings import NatsSettings
from headrace_storage.connection import Connection
from headrace_storage.doctor.finding import Finding, Level
from headrace_storage.doctor.observation import Observation
from headrace_storage.doctor.observe import observe_consumers, observe_server, observe_stream
from headrace_storage.doctor.queue_checks import check_consumers
from headrace_storage.doctor.server_checks import check_sync, check_version
from headrace_storage.topology import StorageLimits, topology_streams

# Settings of a consumer with which jobs are given up, forgotten or repeated by the server.
_UNSAFE = ("max_deliver ", "backoff ", "filter_subject ", "inactive_threshold ", "headers_only ", "ack_policy ")


async def examine_safety(connection: Connection, settings: NatsSettings, models: tuple[str, ...]) -> list[Finding]:
    """What makes, or may make, the broker unsafe for jobs of these models; empty if all is well.

    Consumers that are missing are none of it: whoever needs them says so.
    """
    seen = await observe_server(connection, settings)
    streams = await asyncio.gather(
        *(observe_stream(connection, wanted) for wanted in topology_streams(StorageLimits()))
    )
    consumers = await observe_consumers(connection, models)
    seen = msgspec.structs.replace(
        seen,
        streams=tuple(streams),
        models=models,
        consumers=tuple(
            msgspec.structs.replace(consumer, differences=unsafe)
            for consumer in consumers
            if (unsafe := tuple(said for said in consumer.differences if said.startswith(_UNSAFE)))
        ),
    )
    return dangers(seen)


def dangers(seen: Observation) -> list[Finding]:
    """Findings that a worker must not pass over (FAIL), or should mention (anything else). Pure."""
    found = [*check_version(seen), *check_sync(seen), *_drops_jobs(seen), *check_consumers(seen)]
    return [finding for finding in found if finding.level is Level.FAIL or finding.check == "sync_interval"]


def _drops_jobs(seen: Observation) -> list[Finding]:
    return [
        Finding(
            f"stream {stream.name}",
            Level.FAIL,
            "its discard policy is `old`: when it is full it drops what it accepted",
            "change it to `new`",
        )
        for stream in seen.streams
        if stream.drops_oldest
    ]
