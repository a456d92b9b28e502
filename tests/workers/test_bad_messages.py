"""Whatever is published, it ends in one clear result, and the worker goes on. Seen as a raw NATS client sees it."""

import asyncio
import random

import msgspec
import pytest
from rig import DEADLINE_S, TENANT, Rig

from headrace_contracts.errors import ErrorCode
from headrace_contracts.names import Stream
from headrace_contracts.result import Result, Status
from headrace_storage.results import wait_result

pytestmark = pytest.mark.slow


async def result_of(rig: Rig, data: bytes, headers: dict[str, str] | None = None) -> Result:
    return await rig.result(f"seq-{await rig.publish(data, headers=headers)}")


@pytest.mark.parametrize(
    ("data", "headers", "message"),
    [
        (b"", None, "neither a JSON object"),
        (b"{", None, "truncated"),
        (b'{"input": {}', None, "truncated"),
        (b"[]", None, "neither a JSON object"),
        (b"\x82\xa5input\x80\xa9time", None, "truncated"),
        (b'{"inputs": {}}', None, "`inputs`"),
        (b"{}", None, "missing required field `input`"),
        (b'{"input": {}}', {"Content-Type": "text/html"}, "Content-Type 'text/html' is none of"),
        (b'{"input": {}}', {"nats-msg-id": "an id with spaces"}, "job id 'an id with spaces' is not valid"),
        (b'{"input": {}}', {"nats-msg-id": "a.b"}, "job id 'a.b' is not valid"),
        (b'{"input": {}, "timeout_s": -1}', None, "`timeout_s` is -1"),
    ],
)
async def test_a_message_that_is_no_job(rig: Rig, data: bytes, headers: dict[str, str] | None, message: str) -> None:
    await rig.add_model()
    await rig.start_worker()
    result = await result_of(rig, data, headers)
    assert (result.status, result.error.code) == (Status.FAILED, ErrorCode.UNDECODABLE)
    assert message in result.error.message
    kept = await rig.connection.js.get_last_msg(Stream.DEAD, f"dead.{TENANT}.{rig.model}.{result.id}")
    assert (kept.data or b"") == data
    assert (await rig.run()).status is Status.SUCCEEDED


@pytest.mark.parametrize("status", ["100", "404", "503"])
async def test_a_job_that_looks_like_an_answer_of_the_broker_is_a_job(rig: Rig, status: str) -> None:
    await rig.add_model()
    await rig.start_worker()
    result = await result_of(rig, b'{"input": {}}', {"Status": status, "Nats-Sequence": "1"})
    assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)


async def test_an_input_that_is_wrong_is_a_result_and_no_dead_letter(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    for task_input, message in [
        ({"steps": 101}, "input.steps: 101 is over this model's limit of 100"),
        ({"step": 1}, "input.step: is not a field of this task's input"),
        ({"steps": "many"}, "input.steps: Expected `int`, got `str`"),
        ({"behaviour": "dance"}, "input.behaviour: Invalid enum value 'dance'"),
    ]:
        result = await result_of(rig, msgspec.json.encode({"input": task_input}))
        assert (result.status, result.error.code, result.attempts) == (Status.FAILED, ErrorCode.INVALID_INPUT, 0)
        assert message in result.error.message
    info = await rig.connection.js.stream_info(Stream.DEAD, subjects_filter=f"dead.{TENANT}.{rig.model}.>")
    assert not info.state.subjects


async def test_a_job_for_an_unknown_model_is_answered(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    ack = await rig.connection.js.publish("jobs.acme.no-such-model.low", b'{"input": {}}')
    async with asyncio.timeout(DEADLINE_S):
        result = await wait_result(rig.connection, TENANT, "no-such-model", f"seq-{ack.seq}")
    assert (result.status, result.error.code) == (Status.FAILED, ErrorCode.UNKNOWN_MODEL)
    assert rig.model in result.error.message
    await until_gone(rig, "jobs.acme.no-such-model.>")


async def test_garbage_in_the_place_of_a_result_does_not_stop_the_worker(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    await rig.connection.js.publish("results.acme.nothing.squatted", b"no result")
    await rig.connection.js.publish("jobs.acme.nothing.low", b'{"input": {}}', headers={"Nats-Msg-Id": "squatted"})
    await wait_for_dead_letter(rig, "dead.acme.nothing.squatted")
    await until_gone(rig, "jobs.acme.nothing.>")
    assert (await rig.run()).status is Status.SUCCEEDED


async def test_a_job_in_an_unknown_lane_is_answered(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    sequence = await rig.publish(b'{"input": {}}', lane="urgent")
    result = await rig.result(f"seq-{sequence}")
    assert (result.status, result.error.code) == (Status.FAILED, ErrorCode.INVALID_INPUT)
    assert "lane 'urgent' is not valid" in result.error.message


async def test_a_job_of_a_tenant_that_cannot_be_named_is_kept_for_the_operator(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    ack = await rig.connection.js.publish(f"jobs.ténant.{rig.model}.normal", b'{"input": {}}')
    await wait_for_dead_letter(rig, f"dead.nameless.*.seq-{ack.seq}")


async def test_two_hundred_random_messages_do_not_stop_the_worker(rig: Rig) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    await rig.add_model()
    await rig.start_worker()
    good = msgspec.json.encode({"input": {"echo": "x"}, "ttl_s": 60})
    ids = []
    for _ in range(200):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        ids.append(f"seq-{await rig.publish(bytes(data[: rng.randrange(len(data) + 1)]))}")
    statuses = {(await rig.result(job_id, 2 * DEADLINE_S)).status for job_id in ids}
    assert statuses <= {Status.SUCCEEDED, Status.FAILED}
    assert (await rig.run()).status is Status.SUCCEEDED


async def until_gone(rig: Rig, subjects: str) -> None:
    """Wait until no job is left there: a result is committed before its job is removed."""
    async with asyncio.timeout(DEADLINE_S):
        while (await rig.connection.js.stream_info(Stream.JOBS, subjects_filter=subjects)).state.subjects:
            await asyncio.sleep(0.05)


async def wait_for_dead_letter(rig: Rig, subject: str) -> None:
    subscription = await rig.connection.js.subscribe(subject, stream=Stream.DEAD)
    await subscription.next_msg(DEADLINE_S)
    await subscription.unsubscribe()
