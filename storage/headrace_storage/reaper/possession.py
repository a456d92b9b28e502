"""Who may have a job that its consumer says it never delivered.

The broker writes a delivery down a while after it made it. Killed in between, it takes the job for one that waits,
and so does a consumer that was deleted and made again. Workers know better, and say so in their heartbeats: these are
in the broker's memory, so the age of their bucket tells when the broker began to remember anew.
"""

import math
from datetime import datetime

import msgspec
import nats.js.errors

from headrace_contracts.heartbeat import WorkerStatus
from headrace_contracts.model import ModelSpec, Timeouts
from headrace_contracts.names import Bucket
from headrace_storage.connection import Connection
from headrace_storage.topology import HEARTBEAT_TTL_S, ensure_topology
from headrace_storage.workers import list_workers


class Holders(msgspec.Struct, frozen=True):
    """What the workers say."""

    running: frozenset[tuple[str, str]]
    """Model and id of the jobs in engines."""
    busy: frozenset[str]
    """Models of which a worker has any job, be it that its files are fetched or stored."""
    since: datetime
    """Since when the broker remembers: no delivery made later can be forgotten."""


async def ask_holders(connection: Connection) -> Holders:
    """Read the heartbeats.

    Raises:
        BrokerUnavailable: no answer.
    """
    with connection.errors():
        try:
            info = await connection.js.stream_info(f"KV_{Bucket.WORKERS}")
        except nats.js.errors.NotFoundError:
            # The broker was restarted, and no worker has come back to it yet.
            await ensure_topology(connection)
            info = await connection.js.stream_info(f"KV_{Bucket.WORKERS}")
    return holders_of(await list_workers(connection), info.created)


def holders_of(workers: list[WorkerStatus], since: datetime) -> Holders:
    """What these heartbeats say. Pure."""
    engines = [engine for worker in workers for engine in worker.engines]
    return Holders(
        frozenset((engine.model, job_id) for engine in engines for job_id in engine.running),
        frozenset(engine.model for engine in engines if engine.running or engine.held),
        since,
    )


def free_from(
    stored_at: datetime, model: str, consumer_created_at: datetime, holders: Holders, spec: ModelSpec | None
) -> float:
    """From when (seconds since 1970) nobody can have a job that was never delivered; inf: as long as a worker is busy.

    Pure. A job that is younger than its consumer and the broker's memory is free at once.
    """
    free_s = 0.0
    if stored_at < consumer_created_at:
        # Lent by the consumer before; whoever has it needs no consumer to finish it.
        timeouts = Timeouts() if spec is None else spec.timeouts
        free_s = consumer_created_at.timestamp() + timeouts.load_s + timeouts.run_s
    if stored_at < holders.since:
        if model in holders.busy:
            return math.inf
        # Every worker that lives has spoken by then.
        free_s = max(free_s, holders.since.timestamp() + HEARTBEAT_TTL_S)
    return free_s
