"""Asks the broker for what is known of one job: some fifteen small requests, however long the queue is.

Only the search for a job whose id is not its place reads messages: those of its tenant, from the oldest on.
"""

import msgspec

from headrace.explaining.facts import Facts, InQueue
from headrace_contracts.alert import WorkerColdStart
from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerForbidden, UnknownModel
from headrace_contracts.event import Progress, Retrying, Started
from headrace_contracts.model import ModelSpec
from headrace_contracts.result import Result
from headrace_storage.alert_history import cold_starts_of
from headrace_storage.alerts import last_decision
from headrace_storage.attempts import get_attempts
from headrace_storage.connection import Connection
from headrace_storage.events import last_event
from headrace_storage.lanes import lanes_of_model
from headrace_storage.leadership import LeaseName, leader_of
from headrace_storage.lookup import PlacedJob, find_placed_job
from headrace_storage.queue_position import find_in_ingress, jobs_ahead
from headrace_storage.registry import get_model
from headrace_storage.results import find_result, get_result
from headrace_storage.workers import list_workers


async def collect(connection: Connection, clock: Clock, tenant: str, job_id: str, model: str | None) -> Facts:
    """Everything that is known of a job now.

    Args:
        connection: the broker, as an operator's role.
        clock: for the moment of the facts.
        tenant: whose job it is.
        job_id: its id.
        model: spares looking through the jobs of other models.

    Raises:
        BrokerForbidden: this role may not look into the queue.
        BrokerUnavailable: no answer.
    """
    result = await _result(connection, tenant, job_id, model)
    if result is None:
        placed = await find_placed_job(connection, tenant, job_id, model)
        facts = await _unfinished(connection, clock, tenant, job_id, placed)
        # It may have ended while we looked.
        result = await _result(connection, tenant, job_id, model)
        if result is None:
            return facts
    cold_starts = await _cold_starts(connection, result.model)
    return Facts(job_id, tenant, clock.now(), result.model, result, cold_starts=cold_starts)


async def _result(connection: Connection, tenant: str, job_id: str, model: str | None) -> Result | None:
    if model is None:
        return await find_result(connection, tenant, job_id)
    return await get_result(connection, tenant, model, job_id)


async def _unfinished(
    connection: Connection, clock: Clock, tenant: str, job_id: str, placed: PlacedJob | None
) -> Facts:
    if placed is None:
        ingress = await find_in_ingress(connection, tenant, job_id)
        workers = () if ingress is None else tuple(await list_workers(connection))
        return Facts(job_id, tenant, clock.now(), ingress=ingress, workers=workers)
    job = placed.job
    spec = await _spec(connection, job.model)
    lanes = await lanes_of_model(connection, job.model)
    lane = next((lane for lane in lanes if lane.lane is job.lane), None)
    # Without a consumer nobody can have had it, and how many are before it is of no interest.
    ahead = 0 if lane is None else await jobs_ahead(connection, lane, placed.sequence)
    facts = Facts(
        job_id,
        tenant,
        clock.now(),
        job.model,
        queued=InQueue(job.lane, job.created_at, job.body.ttl_s, ahead),
        spec=spec,
        lanes=lanes,
        workers=tuple(await list_workers(connection)),
        decision=await last_decision(connection, job.model),
        leader=await leader_of(connection, LeaseName.SCALER),
        cold_starts=await cold_starts_of(connection, job.model),
        attempts=await get_attempts(connection, tenant, job.model, job_id),
    )
    return facts if ahead is not None else await _with_events(connection, facts)


async def _with_events(connection: Connection, facts: Facts) -> Facts:
    """With what the newest attempt said; a job that no worker has had has none."""
    started = await last_event(connection, facts.tenant, facts.job_id, "started")
    if started is None or not isinstance(started.event, Started):
        return facts
    retrying = await last_event(connection, facts.tenant, facts.job_id, "retrying")
    if retrying is not None and retrying.sequence > started.sequence and isinstance(retrying.event, Retrying):
        return msgspec.structs.replace(facts, started=started.event, retrying=retrying.event)
    progress = await last_event(connection, facts.tenant, facts.job_id, "progress")
    done = None
    if progress is not None and isinstance(progress.event, Progress) and progress.sequence > started.sequence:
        done = progress.event.step / progress.event.total if progress.event.total > 0 else None
    return msgspec.structs.replace(facts, started=started.event, done=done)


async def _spec(connection: Connection, model: str) -> ModelSpec | None:
    try:
        return await get_model(connection, model)
    except UnknownModel:
        return None


async def _cold_starts(connection: Connection, model: str) -> tuple[WorkerColdStart, ...]:
    try:
        return await cold_starts_of(connection, model)
    except BrokerForbidden:
        # A tenant's role reads its own results, and not what the scaler tells: its job is explained without.
        return ()
