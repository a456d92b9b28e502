"""What an untrusted tenant publishes reaches nobody else, whatever its bytes, and ends in one result."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import nats.js.errors
import pytest
import pytest_asyncio
from secured import DEADLINE_S, MODEL, OTHER, TRUSTED, UNTRUSTED, SecuredBroker

import headrace
from headrace_contracts.names import Stream, ingress_stream
from headrace_contracts.result import Result, Status
from headrace_storage.auth.roles import Role
from headrace_storage.connection import Connection
from headrace_storage.following import last_message
from headrace_storage.ingress import waiting_in_jobs
from headrace_storage.results import get_result, wait_result
from headrace_workers.forwarder import COUNT_EVERY, IN_JOBS

pytestmark = pytest.mark.slow

SUBJECT = f"ingress.{UNTRUSTED}.{MODEL}.normal"


def body(echo: str, **fields: object) -> bytes:
    return msgspec.json.encode({"input": {"echo": echo, **fields}})


@pytest_asyncio.fixture
async def stranger(secured: SecuredBroker) -> AsyncIterator[Connection]:
    async with secured.connection(Role.PRODUCER, UNTRUSTED) as connection:
        yield connection


@pytest_asyncio.fixture
async def served(secured: SecuredBroker) -> SecuredBroker:
    """With a worker from now on."""
    await secured.ensure_worker()
    return secured


@pytest_asyncio.fixture
async def admin(secured: SecuredBroker) -> AsyncIterator[Connection]:
    async with secured.connection(Role.ADMIN) as connection:
        yield connection


async def result_of(connection: Connection, job_id: str, tenant: str = UNTRUSTED) -> Result:
    async with asyncio.timeout(DEADLINE_S):
        return await wait_result(connection, tenant, MODEL, job_id)


def echo_of(result: Result) -> str:
    assert result.status is Status.SUCCEEDED, result.error
    return str(msgspec.json.decode(result.output)["echo"])


async def publish_raw(connection: Connection, subject: bytes, headers: bytes, data: bytes) -> None:
    """As a client that is none: any bytes."""
    head = b"HPUB %b %d %d\r\n" % (subject, len(headers), len(headers) + len(data))
    await connection.nc._send_command(head + headers + data + b"\r\n")
    await connection.nc.flush()


async def test_more_than_its_share_is_refused_and_others_are_not(
    secured: SecuredBroker, stranger: Connection, admin: Connection
) -> None:
    """No worker runs yet: everything waits where it was published."""
    for number in range(400):
        await stranger.js.publish(
            SUBJECT, body(f"job {number}", step_s=0.05), headers={"Nats-Msg-Id": f"flood-{number}"}
        )
    with pytest.raises(nats.js.errors.APIError) as refused:
        await stranger.js.publish(SUBJECT, body("one more"))
    assert refused.value.err_code == 10077
    async with secured.connection(Role.PRODUCER, TRUSTED) as neighbour:
        await neighbour.js.publish(f"jobs.{TRUSTED}.{MODEL}.normal", body("mine"), headers={"Nats-Msg-Id": "mine"})
    assert await waiting_in_jobs(admin, TRUSTED) == 1


async def test_a_full_queue_loses_nothing_and_a_flood_leaves_room(
    secured: SecuredBroker, stranger: Connection, admin: Connection
) -> None:
    """JOBS takes no more for a while; then the flood of the test before is run, a part of it at a time."""
    jobs = (await admin.js.stream_info("JOBS")).config
    await admin.js.update_stream(with_changes(jobs, max_msgs=20))
    await secured.ensure_worker()
    assert echo_of(await result_of(admin, "mine", TRUSTED)) == "mine"
    most = 0

    async def count() -> None:
        nonlocal most
        while True:
            most = max(most, await waiting_in_jobs(admin, UNTRUSTED))

    counting = asyncio.create_task(count())
    assert echo_of(await result_of(stranger, "flood-50")) == "job 50"
    assert 0 < most <= 20
    await admin.js.update_stream(with_changes(jobs, max_msgs=-1))
    for number in range(400):
        assert echo_of(await result_of(stranger, f"flood-{number}")) == f"job {number}"
    counting.cancel()
    assert 20 < most <= IN_JOBS + COUNT_EVERY
    left = (await admin.js.stream_info(ingress_stream(UNTRUSTED))).state
    assert left.messages == 0


async def test_an_id_of_a_neighbour_drops_nobodys_job(served: SecuredBroker, stranger: Connection) -> None:
    async with headrace.Client(served.settings(Role.PRODUCER, TRUSTED)) as client:
        for squatted in ("order-1", "order-2"):
            await stranger.js.publish(SUBJECT, body("squat"), headers={"Nats-Msg-Id": squatted})
            assert echo_of(await result_of(stranger, squatted)) == "squat"
            job = await client.submit(MODEL, job_id=squatted, echo="the victim's")
            assert (await job.result(DEADLINE_S)).output["echo"] == "the victim's"
        job = await client.submit(MODEL, job_id="order-3", echo="first")
        await stranger.js.publish(SUBJECT, body("second"), headers={"Nats-Msg-Id": "order-3"})
        assert echo_of(await result_of(stranger, "order-3")) == "second"
        assert (await job.result(DEADLINE_S)).output["echo"] == "first"


async def test_the_id_follows_from_its_own_receipt_or_header(served: SecuredBroker, stranger: Connection) -> None:
    receipt = await stranger.js.publish(SUBJECT, body("by receipt"))
    assert echo_of(await result_of(stranger, f"seq-{receipt.seq}")) == "by receipt"
    again = [await stranger.js.publish(SUBJECT, body("named"), headers={"Nats-Msg-Id": "my-own"}) for _ in range(2)]
    assert again[1].duplicate
    assert echo_of(await result_of(stranger, "my-own")) == "named"
    receipt = await stranger.js.publish(SUBJECT, body("odd"), headers={"Nats-Msg-Id": "no token, this"})
    assert echo_of(await result_of(stranger, f"seq-{receipt.seq}")) == "odd"
    receipt = await stranger.js.publish(SUBJECT, b"no job")
    assert (await result_of(stranger, f"seq-{receipt.seq}")).error.code == "undecodable"
    receipt = await stranger.js.publish(f"ingress.{UNTRUSTED}.no-such-model.normal", body("?"))
    async with asyncio.timeout(DEADLINE_S):
        result = await wait_result(stranger, UNTRUSTED, "no-such-model", f"seq-{receipt.seq}")
    assert result.error.code == "unknown_model"


async def test_the_trace_of_a_job_is_kept(served: SecuredBroker, stranger: Connection) -> None:
    given = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=1"}
    receipt = await stranger.js.publish(SUBJECT, body("traced"), headers=given)
    job_id = f"seq-{receipt.seq}"
    await result_of(stranger, job_id)
    found = await last_message(stranger, Stream.RESULTS, f"results.{UNTRUSTED}.{MODEL}.{job_id}")
    assert found is not None
    assert {name: found.headers.get(name) for name in given} == given


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Rollup": "all"},
        {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": f"jobs.{TRUSTED}.{MODEL}.high"},
        {"Nats-Expected-Last-Sequence": "1"},
        {"Nats-TTL": "1s"},
        {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1"},
        {"Nats-Incr": "1"},
        {"Headrace-Job-Id": "forged", "Headrace-Submitted-At": "2000-01-01T00:00:00Z"},
        {"Nats-Msg-Id": "twice", "nats-msg-id": "thrice"},
        {"Status": "404", "Reply-To": "results.acme.echo.x"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_no_header_reaches_the_queue_of_all(
    served: SecuredBroker, stranger: Connection, admin: Connection, headers: dict[str, str]
) -> None:
    """Refused by the ingress stream, or accepted and then run like any other: never obeyed."""
    queued = asyncio.Queue()
    listening = await admin.nc.subscribe("jobs.>", cb=queued.put)
    try:
        receipt = await stranger.js.publish(SUBJECT, body("with headers"), headers=headers)
    except nats.js.errors.APIError:
        await listening.unsubscribe()
        return
    job_id = headers.get("Nats-Msg-Id", f"seq-{receipt.seq}")
    assert echo_of(await result_of(stranger, job_id)) == "with headers"
    await listening.drain()
    [message] = [queued.get_nowait() for _ in range(queued.qsize())]
    assert message.subject == f"jobs.{UNTRUSTED}.{MODEL}.normal"
    assert set(message.headers) <= {"Nats-Msg-Id", "Headrace-Job-Id", "Headrace-Submitted-At", "Content-Type"}
    assert message.headers["Nats-Msg-Id"].startswith(f"ingress.{UNTRUSTED}.")


@pytest.mark.parametrize(
    "headers",
    [
        b"NATS/1.0 404\r\n\r\n",
        b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
        b"NATS/1.0 100\r\nNats-Last-Consumer: 7\r\n\r\n",
        b"NATS/1.0 \xff\xfe\r\n\r\n",
        b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n",
        b"NATS/1.0\r\nContent-Type: \xff\xfe\r\n\r\n",
        b"NATS/1.0\r\n:\r\n\r\n",
    ],
)
@pytest.mark.parametrize("tenant", [UNTRUSTED, TRUSTED])
async def test_bytes_that_are_no_headers_end_in_a_result(
    served: SecuredBroker, admin: Connection, tenant: str, headers: bytes
) -> None:
    """A first line with a status looks like an answer of the server; bad text would end the client's reading."""
    stream, subject = (
        (ingress_stream(tenant), SUBJECT) if tenant == UNTRUSTED else ("JOBS", f"jobs.{tenant}.{MODEL}.high")
    )
    async with served.connection(Role.PRODUCER, tenant) as hostile:
        before = (await admin.js.stream_info(stream)).state.last_seq
        await publish_raw(hostile, subject.encode(), headers, body("raw"))
        async with asyncio.timeout(DEADLINE_S):
            while (sequence := (await admin.js.stream_info(stream)).state.last_seq) == before:
                await asyncio.sleep(0.01)
        result = await result_of(hostile, f"seq-{sequence}", tenant)
    assert result.status in (Status.SUCCEEDED, Status.FAILED)
    assert result.error is None or result.error.code == "undecodable"


async def test_subjects_that_are_no_text_do_not_stop_the_worker(served: SecuredBroker, stranger: Connection) -> None:
    for subject in (
        b"ingress.stranger.\xff.normal",
        b"ingress.stranger.echo.\xfe\xff",
        "ingress.stranger.é.ü".encode(),
    ):
        await publish_raw(stranger, subject, b"NATS/1.0\r\n\r\n", body("?"))
    receipt = await stranger.js.publish(SUBJECT, body("after it"))
    assert echo_of(await result_of(stranger, f"seq-{receipt.seq}")) == "after it"


@pytest.mark.parametrize("tenant", [UNTRUSTED, OTHER])
async def test_no_answer_of_the_server_lands_on_a_neighbours_subject(
    served: SecuredBroker, admin: Connection, tenant: str
) -> None:
    """Within one account a direct get with a reply subject would put its own result on a neighbour's."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def note(message: object) -> None:
        heard.put_nowait(message.subject)

    listening = [
        await admin.nc.subscribe(f"{kind}.{TRUSTED}.>", cb=note)
        for kind in ("results", "jobs", "control.cancel", "events")
    ]
    await admin.nc.flush()
    own = SUBJECT if tenant == UNTRUSTED else f"jobs.{tenant}.{MODEL}.normal"
    async with served.connection(Role.PRODUCER, tenant) as hostile:
        receipt = await hostile.js.publish(own, body("mine"))
        await result_of(hostile, f"seq-{receipt.seq}", tenant)
        for target in (
            f"results.{TRUSTED}.{MODEL}.forged",
            f"jobs.{TRUSTED}.{MODEL}.high",
            f"control.cancel.{TRUSTED}.{MODEL}.x",
        ):
            await hostile.nc.publish(own, body("redirected"), reply=target)
            await hostile.nc.publish(
                f"$JS.API.DIRECT.GET.RESULTS.results.{tenant}.{MODEL}.seq-{receipt.seq}", b"", reply=target
            )
        last = await hostile.js.publish(own, body("last"))
        await result_of(hostile, f"seq-{last.seq}", tenant)
    for subscription in listening:
        await subscription.drain()
    assert heard.empty()
    assert await get_result(admin, TRUSTED, MODEL, "forged") is None


async def test_a_cancel_goes_the_same_way(served: SecuredBroker) -> None:
    async with headrace.Client(served.settings(Role.PRODUCER, UNTRUSTED)) as client:
        job = await client.submit(MODEL, echo="long", steps=100, step_s=0.2, metadata={"order": 7})
        async for event in job.events():
            if type(event).__name__ == "Progress":
                break
        assert await job.cancel() == "canceling"
        result = await job.result(DEADLINE_S)
    assert (result.status, result.metadata) == (Status.CANCELED, {"order": 7})


async def test_a_cancel_reaches_no_other_tenant(served: SecuredBroker, stranger: Connection) -> None:
    async with headrace.Client(served.settings(Role.PRODUCER, TRUSTED)) as client:
        job = await client.submit(MODEL, echo="mine", steps=10, step_s=0.1)
        for request in ({"job_id": job.id}, {"job_id": f"../{job.id}"}, {"job_id": "a.b"}, {"tenant": TRUSTED}, 7):
            data = msgspec.json.encode(request)
            await stranger.js.publish(f"ingress.{UNTRUSTED}.{MODEL}.cancel", data)
        assert (await job.result(DEADLINE_S)).status is Status.SUCCEEDED


def with_changes(config: object, **changes: object) -> object:
    """The client's own configuration object with other values."""
    import copy

    changed = copy.copy(config)
    vars(changed).update(changes)
    return changed
