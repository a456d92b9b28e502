"""What a worker does with jobs, seen from the broker: publish, and read what comes back."""

import asyncio
import hashlib
import random

import msgspec
import pytest
from rig import DEADLINE_S, TENANT, Rig

from headrace_contracts import event as events
from headrace_contracts.codec import Encoding, encode
from headrace_contracts.errors import ErrorCode, Fault
from headrace_contracts.model import Batching
from headrace_contracts.names import Lane
from headrace_contracts.result import Status
from headrace_storage.blobs.jetstream import JetStreamBlobs
from headrace_storage.results import get_result, wait_result


async def test_a_published_job_comes_back_as_a_result(rig: Rig) -> None:
    await rig.add_model(version="7")
    await rig.start_worker()
    result = await rig.result((await rig.submit_body({"input": {"echo": "hello"}, "metadata": {"order": 42}})).job_id)
    assert result.status is Status.SUCCEEDED
    assert msgspec.json.decode(result.output)["echo"] == "hello"
    assert (result.version, result.attempts, result.metadata) == ("7", 1, {"order": 42})
    assert result.created_at <= result.started_at <= result.completed_at


async def test_a_job_without_an_id_is_named_after_its_place_in_the_stream(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    sequence = await rig.publish(b'{"input": {"echo": "no header needed"}}')
    result = await rig.result(f"seq-{sequence}")
    assert msgspec.json.decode(result.output)["echo"] == "no header needed"


@pytest.mark.parametrize(
    "content_type", [None, "application/msgpack", "application/x-msgpack", "Application/Vnd.MsgPack; charset=x"]
)
async def test_a_result_answers_in_the_encoding_of_its_job(rig: Rig, content_type: str | None) -> None:
    await rig.add_model()
    await rig.start_worker()
    headers = {"content-TYPE": content_type} if content_type else None
    sequence = await rig.publish(encode({"input": {"echo": "packed"}}, Encoding.MSGPACK), headers=headers)
    result = await rig.result(f"seq-{sequence}")
    assert msgspec.msgpack.decode(result.output)["echo"] == "packed"


async def test_an_artifact_is_stored_before_its_result(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    result = await rig.run(output_bytes=300_000, seed=5)
    [artifact] = result.artifacts
    async with JetStreamBlobs(rig.connection.nc) as blobs:
        data = await blobs.get(artifact.blob)
    assert data == random.Random(5).randbytes(300_000)
    assert artifact.sha256 == hashlib.sha256(data).hexdigest()
    assert artifact.blob.startswith(f"{TENANT}/{rig.model}/{result.id}/")


async def test_events_tell_what_happens_to_a_job(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    job_id = await rig.submit(steps=3)
    await rig.result(job_id)
    seen = await rig.events(job_id, last=events.Progress)
    assert [type(event) for event in seen] == [events.Started, events.Progress]
    assert (seen[1].step, seen[1].total) == (1, 3)


async def test_a_model_error_is_a_result_and_the_worker_goes_on(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    failed = await rig.run(behaviour="error")
    assert failed.status is Status.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.fault) == (ErrorCode.MODEL_ERROR, Fault.MODEL)
    assert (await rig.run()).status is Status.SUCCEEDED


async def test_a_batch_runs_together(rig: Rig) -> None:
    """Four jobs of 20 steps share the steps of one engine: the last ends within the time of two, not of four."""
    await rig.add_model(batching=Batching(max_size=4))
    jobs = [await rig.submit(steps=20, step_s=0.05) for _ in range(4)]
    await rig.start_worker()
    results = [await rig.result(job) for job in jobs]
    first = min(result.started_at for result in results)
    last = max(result.completed_at for result in results)
    longest_s = max(result.timings.run_s for result in results)
    assert (last - first).total_seconds() < 2 * longest_s


async def test_two_tenants_may_use_one_job_id_at_the_same_time(rig: Rig) -> None:
    await rig.add_model(batching=Batching(max_size=2))
    for tenant in ("acme", "other"):
        body = {"input": {"echo": tenant, "steps": 10, "step_s": 0.05}}
        subject = f"jobs.{tenant}.{rig.model}.normal"
        # In another spelling the server does not take the second one for a repetition of the first.
        await rig.connection.js.publish(subject, msgspec.json.encode(body), headers={"nats-msg-id": "order-1"})
    await rig.start_worker()
    async with asyncio.timeout(DEADLINE_S):
        for tenant in ("acme", "other"):
            result = await wait_result(rig.connection, tenant, rig.model, "order-1")
            assert msgspec.json.decode(result.output)["echo"] == tenant
    assert result.attempts == 1


async def test_high_comes_before_normal_before_low(rig: Rig) -> None:
    await rig.add_model()
    jobs = {}
    for lane in (Lane.LOW, Lane.NORMAL, Lane.HIGH):
        jobs[lane] = await rig.submit(lane=lane, steps=2, step_s=0.05)
    await rig.start_worker()
    started = {lane: (await rig.result(job)).started_at for lane, job in jobs.items()}
    assert started[Lane.HIGH] < started[Lane.NORMAL] < started[Lane.LOW]


async def test_low_is_not_starved_by_a_stream_of_high(rig: Rig) -> None:
    await rig.add_model()
    low = await rig.submit(lane=Lane.LOW)
    high = [await rig.submit(lane=Lane.HIGH) for _ in range(60)]
    await rig.start_worker()
    low_result = await rig.result(low)
    last_high = max([(await rig.result(job)).started_at for job in high])
    assert low_result.started_at < last_high


async def test_a_job_that_waited_too_long_expires_without_running(rig: Rig) -> None:
    await rig.add_model()
    receipt = await rig.submit_body({"input": {}, "ttl_s": 0.001})
    await rig.start_worker()
    result = await rig.result(receipt.job_id)
    assert (result.status, result.attempts) == (Status.EXPIRED, 0)
    assert result.error.code is ErrorCode.TTL_EXPIRED


async def test_a_job_that_runs_too_long_is_stopped_at_its_next_step(rig: Rig) -> None:
    await rig.add_model()
    worker = await rig.start_worker()
    engine = rig.engine_pid(worker)
    receipt = await rig.submit_body({"input": {"steps": 100, "step_s": 0.05}, "timeout_s": 0.3})
    result = await rig.result(receipt.job_id)
    assert (result.status, result.error.code) == (Status.FAILED, ErrorCode.TIMEOUT)
    assert rig.engine_pid(worker) == engine, "a job that stops by itself costs no engine"


async def test_a_second_delivery_of_finished_work_does_not_run_again(rig: Rig) -> None:
    """The worker that committed died before its ack: whoever gets the job next finds the result."""
    await rig.add_model()
    job_id = await rig.submit(job_id="twice", echo="first")
    worker = await rig.start_worker()
    first = await rig.result(job_id)
    worker.terminate()
    await worker.wait()
    # The same id again. In this case the server does not see a duplicate, as after its restart; we do.
    await rig.publish(b'{"input": {"echo": "second"}}', headers={"nats-msg-id": "twice"})
    await rig.start_worker()
    await rig.run()
    again = await get_result(rig.connection, TENANT, rig.model, job_id)
    assert again.completed_at == first.completed_at
