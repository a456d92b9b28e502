"""`headrace explain` on a real broker: every fact is found where it is, by a process of its own."""

import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from command_line import Finished, Headrace
from rig import TENANT, Rig
from staged_worker import StagedWorker

from headrace import Client
from headrace_contracts.alert import ScalingDecision, WorkerColdStart
from headrace_contracts.clock import SystemClock
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import ErrorCode
from headrace_contracts.event import Retrying
from headrace_contracts.heartbeat import Account, ColdStart, EngineState, EngineStatus, WorkerStatus
from headrace_contracts.job import JobBody
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.names import Bucket, Lane, Stream, consumer_name
from headrace_contracts.result import Status
from headrace_contracts.scaling import Scaling
from headrace_contracts.settings import Settings
from headrace_contracts.tasks.registry import Task
from headrace_local.nats_server import NatsServer
from headrace_storage.alerts import publish_alert
from headrace_storage.auth.plan import IngressLimits
from headrace_storage.events import publish_event
from headrace_storage.ingress import ensure_ingress
from headrace_storage.jobs import submit_job
from headrace_storage.leadership import Leadership
from headrace_storage.registry import add_model, remove_model
from headrace_storage.workers import put_status, remove_status


@pytest_asyncio.fixture
async def model(client: Client) -> AsyncIterator[str]:
    """A model of its own for each test; afterwards nobody leads and nobody works."""
    name = f"m-{uuid.uuid4().hex[:8]}"
    await add_model(client.connection, ModelSpec(name, Task.SYNTHETIC, EngineKind.SYNTHETIC))
    yield name
    await remove_status(client.connection, "w-1")
    await client.connection.js.purge_stream(f"KV_{Bucket.LEASES}")


@pytest.fixture
def explained(headrace_command: Headrace):
    async def run(job_id: str, *arguments: str) -> Finished:
        return await (await headrace_command("explain", job_id, *arguments)).end()

    return run


async def lead(client: Client) -> None:
    assert await Leadership(client.connection, "scaler", "host-1", SystemClock()).acquire()


async def work(client: Client, model: str, name: str = "w-1", **changes: object) -> None:
    now = datetime.now(UTC)
    engine = msgspec.structs.replace(EngineStatus(model, EngineState.READY, 1, (), 0), **changes)
    await put_status(client.connection, WorkerStatus(name, "host", 1, now, now, False, (engine,), "cpu"))


async def deliver(client: Client, model: str) -> None:
    """The broker lends one job, as to a worker."""
    puller = await client.connection.js.pull_subscribe_bind(consumer_name(model, Lane.NORMAL), Stream.JOBS)
    assert len(await puller.fetch(1, timeout=5)) == 1
    await puller.unsubscribe()


async def test_no_such_job(explained) -> None:
    said = await explained("nobody")
    assert said.code == 1
    assert said.out.startswith("nobody unknown\n  There is no job nobody of tenant default")


async def test_it_waits_behind_others_and_nobody_starts_a_worker(client: Client, model: str, explained) -> None:
    for lane in ("high", "normal", "normal"):
        await client.submit(model, lane=lane)
    job = await client.submit(model)
    said = await explained(job.id)
    place, why, todo = said.out.splitlines()[1:]
    assert said.code == 0
    assert f"in lane normal of {model} since" in place
    assert place.endswith("behind 2 jobs of its lane and 1 of higher lanes.")
    assert "no scaler runs" in why
    assert f"`headrace worker --model {model}`" in todo


async def test_the_scaler_says_why_it_starts_none(client: Client, model: str, explained) -> None:
    job = await client.submit(model)
    await lead(client)
    decision = ScalingDecision(model, datetime.now(UTC), 1, 0, 0, "2 cores wanted, 0 free", "no_slot")
    await publish_alert(client.connection, decision)
    assert "every slot is taken: 2 cores wanted, 0 free." in (await explained(job.id)).out
    spec = ModelSpec(model, Task.SYNTHETIC, EngineKind.SYNTHETIC, scaling=Scaling(max_workers=0))
    await add_model(client.connection, spec)
    assert "`max_workers` of the model is 0" in (await explained(job.id)).out


async def test_a_measured_service_time_makes_an_estimate(client: Client, model: str, explained) -> None:
    for _ in range(2):
        await client.submit(model, ttl_s=3600)
    job = await client.submit(model, ttl_s=5)
    await work(client, model, running=("other",), account=Account(busy_s=40.0, jobs=10))
    said = json.loads((await explained(job.id, "--model", model, "--json")).out)
    assert said["state"] == "queued"
    assert said["start_in_s"] == (2 + 0.5) * 4.0
    assert "before its turn" in said["sentences"][-1]


async def test_a_paused_lane(client: Client, model: str, explained) -> None:
    job = await client.submit(model)
    until = datetime.now(UTC) + timedelta(hours=1)
    name = consumer_name(model, Lane.NORMAL)
    await client.connection.api(
        f"CONSUMER.PAUSE.{Stream.JOBS}.{name}", f'{{"pause_until":"{until.isoformat()}"}}'.encode()
    )
    await work(client, model)
    said = await explained(job.id)
    assert f"until {until:%Y-%m-%d %H:%M:%S} UTC" in said.out
    assert f"`nats consumer resume JOBS {name}`" in said.out


async def test_it_waits_for_its_next_attempt(client: Client, worker: StagedWorker, model: str, explained) -> None:
    job = await client.submit(model)
    await deliver(client, model)
    await worker.start(job)
    failed = Retrying(job.id, datetime.now(UTC), 1, ErrorCode.MODEL_ERROR, "no ink", 3700.0)
    await publish_event(worker.connection, "default", model, failed, Encoding.MSGPACK)
    await worker.connection.nc.flush()
    await work(client, model)
    said = await explained(job.id)
    assert "It waits for its next attempt, in 1 h" in said.out
    assert "Attempt 1 of 3 failed at" in said.out
    assert "no ink [model_error]" in said.out


async def test_an_attempt_that_failed_before_is_not_taken_for_the_present_one(
    client: Client, worker: StagedWorker, model: str, explained
) -> None:
    job = await client.submit(model)
    await deliver(client, model)
    await worker.start(job)
    await worker.progress(job, 1, 2)
    await worker.retry(job, "no ink")
    await worker.start(job, attempt=2)
    await worker.connection.nc.flush()
    await work(client, model, "staged")
    said = await explained(job.id)
    await remove_status(client.connection, "staged")
    assert "It runs now on worker staged since" in said.out
    assert "attempt 2)." in said.out  # and not how much of the first was done


async def test_the_model_was_removed(client: Client, model: str, explained) -> None:
    job = await client.submit(model)
    await remove_model(client.connection, model)
    assert "is not in the registry: the job ends as `unknown_model`" in (await explained(job.id)).out


async def test_a_job_of_an_untrusted_tenant_is_not_forwarded_yet(client: Client, model: str, explained) -> None:
    await ensure_ingress(client.connection, "stranger", IngressLimits())
    body = JobBody(msgspec.Raw(b"{}"))
    for job_id in ("one", "two"):
        await submit_job(client.connection, "stranger", model, Lane.LOW, body, Encoding.JSON, job_id, ingress=True)
    said = await explained("two", "--tenant", "stranger")
    assert (said.code, "behind 1 messages" in said.out) == (0, True)
    assert (await explained("two")).code == 1  # not of the usual tenant


async def test_the_end_of_a_job_and_the_cold_start_it_waited_for(
    client: Client, worker: StagedWorker, model: str, explained
) -> None:
    job = await client.submit(model)
    ready = WorkerColdStart(model, "staged", datetime.now(UTC), 0.1, ColdStart(load_s=1.5), 2.0)
    await worker.fail(job, "no ink")
    await publish_alert(client.connection, ready)
    said = await explained(job.id)
    assert (said.code, said.out.splitlines()[0]) == (0, f"{job.id} failed")
    assert "Why: no ink [model_error, fault: model]." in said.out
    assert "run" in said.out


@pytest.mark.slow
async def test_a_real_worker_runs_a_job_to_its_end(
    nats_server: NatsServer, settings: Settings, client: Client, tmp_path: Path, explained
) -> None:
    rig = Rig(nats_server, client.connection, f"m-{uuid.uuid4().hex[:8]}", tmp_path)
    await rig.add_model()
    arguments = ("--tenant", TENANT)
    try:
        await rig.start_worker()
        first = await rig.submit(steps=50, step_s=0.3)
        status = await rig.until_running(first)
        second = await rig.submit()
        running = await explained(first, *arguments)
        await rig.cancel(first)
        assert (await rig.result(second)).status is Status.SUCCEEDED
        await rig.until_drained()
        ended = await explained(second, *arguments)
    finally:
        await rig.stop()
    assert running.out.splitlines()[0] == f"{first} running"
    assert f"It runs now on worker {status.id} since" in running.out
    assert "attempt 1" in running.out
    assert ended.out.splitlines()[0] == f"{second} succeeded"
    assert [line.split()[0] for line in ended.out.splitlines()[2:8]] == [
        "queued",
        "load",
        "fetch",
        "run",
        "store",
        "other",
    ]
