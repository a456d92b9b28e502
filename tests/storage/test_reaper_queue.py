"""Jobs that nobody draws end all the same, and those that somebody may run are left alone."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import nats.js.errors
import pytest
import pytest_asyncio

from headrace_contracts.clock import SystemClock
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import ErrorCode
from headrace_contracts.heartbeat import EngineState, EngineStatus, WorkerStatus
from headrace_contracts.job import JobBody
from headrace_contracts.model import EngineKind, ModelSpec, Timeouts
from headrace_contracts.names import Lane, Stream, consumer_name
from headrace_contracts.result import Result, ResultError, Status
from headrace_contracts.settings import NatsSettings, ReaperSettings
from headrace_contracts.tasks.registry import Task
from headrace_local.nats_server import NatsServer
from headrace_storage.blobs import MemoryBlobs
from headrace_storage.connection import Connection
from headrace_storage.delivery import Delivery
from headrace_storage.jobs import submit_job
from headrace_storage.puller import JobPuller
from headrace_storage.reaper import Act, Reaper, Rule, Trouble, queue
from headrace_storage.reaper.duty import Duty
from headrace_storage.reaper.waiting import WaitingJobs
from headrace_storage.registry import add_model, remove_model
from headrace_storage.results import commit_result, get_result
from headrace_storage.topology import ensure_topology
from headrace_storage.workers import put_status, remove_status

HOUR_S = 3600.0


class LateClock(SystemClock):
    """The machine's clock, put forward: what takes a day has taken a day."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead_s)


class Yard:
    """A model with no worker, and a reaper."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.model = f"m-{uuid.uuid4().hex[:8]}"
        self.clock = LateClock()
        self.told: list[Act | Trouble] = []
        self.blobs = MemoryBlobs(self.clock)
        self.reaper = self.new_reaper()
        self.puller = JobPuller(connection, self.model)

    def new_reaper(self) -> Reaper:
        duty = Duty(self.connection, self.clock, lambda: None, self.told.append)
        return Reaper(duty, self.blobs, ReaperSettings())

    async def add_model(self, queue_s: float = 2 * HOUR_S) -> ModelSpec:
        spec = ModelSpec(self.model, Task.SYNTHETIC, EngineKind.SYNTHETIC, timeouts=Timeouts(queue_s=queue_s))
        await add_model(self.connection, spec)
        return spec

    async def submit(self, job_id: str, ttl_s: float | None = None, lane: Lane = Lane.NORMAL, model: str = "") -> int:
        body = JobBody(msgspec.Raw(b"{}"), ttl_s=ttl_s, metadata={"of": job_id})
        receipt = await submit_job(
            self.connection, "t", model or self.model, lane, body, Encoding.JSON, self.id(job_id)
        )
        return receipt.sequence

    def id(self, job_id: str) -> str:
        """The broker knows an id for two minutes, in all models."""
        return job_id if job_id.startswith("seq-") else f"{job_id}-of-{self.model}"

    async def result(self, job_id: str) -> Result | None:
        return await get_result(self.connection, "t", self.model, self.id(job_id))

    async def cancel(self, job_id: str) -> None:
        await commit_result(self.connection, "t", result_of(self.model, self.id(job_id)), Encoding.JSON)

    async def take(self, lane: Lane = Lane.NORMAL) -> Delivery:
        async with asyncio.timeout(20):
            while not (taken := await self.puller.take(lane, 1)):
                pass
        return taken[0]

    async def waiting(self, model: str = "") -> int:
        subjects = f"jobs.*.{model or self.model}.*"
        info = await self.connection.js.stream_info(Stream.JOBS, subjects_filter=subjects)
        return sum((info.state.subjects or {}).values())

    def done(self, rule: Rule) -> list[str]:
        """What the rule did, for our model or for all without one."""
        assert not [trouble for trouble in self.told if isinstance(trouble, Trouble)], self.told
        return [act.done for act in self.told if isinstance(act, Act) and act.rule is rule]


def result_of(model: str, job_id: str, status: Status = Status.CANCELED) -> Result:
    now = datetime.now(UTC)
    error = ResultError(ErrorCode.CANCELED, "canceled", "input", retryable=False)  # type: ignore[arg-type]
    return Result(job_id, model, "1", status, msgspec.Raw(b"null"), 0, now, now, error=error)


@pytest_asyncio.fixture
async def yard(nats_server: NatsServer) -> AsyncIterator[Yard]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await ensure_topology(connection)
        yard = Yard(connection)
        yield yard
        await remove_model(connection, yard.model)
        yard.clock.ahead_s = 0
        await yard.new_reaper().look()


async def test_a_job_expires_after_its_own_time_with_no_worker_alive(yard: Yard) -> None:
    await yard.add_model()
    await yard.submit("soon", ttl_s=HOUR_S / 2)
    await yard.submit("later")
    await yard.reaper.look()
    assert await yard.waiting() == 2
    yard.clock.ahead_s = HOUR_S
    await yard.reaper.look()
    result = await yard.result("soon")
    assert result is not None
    assert (result.status, result.error.code, result.attempts) == (Status.EXPIRED, ErrorCode.TTL_EXPIRED, 0)
    assert "its ttl_s is 1800" in result.error.message
    assert result.metadata == {"of": "soon"}
    assert 3599 < result.timings.queued_s < 3700
    assert await yard.result("later") is None
    assert yard.done(Rule.EXPIRED) == [f"job {yard.id('soon')} expired"]
    yard.clock.ahead_s = 3 * HOUR_S
    await yard.reaper.look()
    assert (await yard.result("later")).status is Status.EXPIRED
    assert await yard.waiting() == 0


async def test_a_job_on_the_edge_is_not_expired(yard: Yard) -> None:
    """A worker whose clock is a second behind would still run it."""
    await yard.add_model()
    await yard.submit("edge", ttl_s=HOUR_S)
    yard.clock.ahead_s = HOUR_S + 1
    await yard.reaper.look()
    assert await yard.result("edge") is None


async def test_a_reaper_that_comes_late_finds_what_expired_before_it(yard: Yard) -> None:
    await yard.add_model()
    for number in range(5):
        await yard.submit(f"j{number}", ttl_s=60)
    yard.clock.ahead_s = HOUR_S
    await yard.new_reaper().look()
    assert [(await yard.result(f"j{number}")).status for number in range(5)] == [Status.EXPIRED] * 5
    assert await yard.waiting() == 0


async def test_a_job_that_was_delivered_is_its_workers(yard: Yard) -> None:
    """Also after it was given back: it is in the queue then, and its consumer has delivered it."""
    await yard.add_model()
    await yard.submit("running", ttl_s=60)
    await yard.submit("given-back", ttl_s=60)
    await yard.submit("untouched", ttl_s=60)
    running, given_back = await yard.take(), await yard.take()
    await given_back.nak(delay_s=HOUR_S)
    yard.clock.ahead_s = HOUR_S
    await yard.reaper.look()
    assert (await yard.result("untouched")).status is Status.EXPIRED
    assert await yard.result("running") is None
    assert await yard.result("given-back") is None
    assert await yard.waiting() == 2
    await running.ack()


async def test_a_job_that_is_delivered_after_the_reaper_read_it_is_its_workers(yard: Yard) -> None:
    await yard.add_model()
    await yard.submit("read", ttl_s=60)
    await yard.reaper.look()
    running = await yard.take()
    yard.clock.ahead_s = HOUR_S
    await yard.reaper.look()
    assert await yard.result("read") is None
    await running.ack()


async def test_a_job_that_is_delivered_in_the_last_moment_is_its_workers(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the look around, and before the reaper ends what is due."""
    await yard.add_model()
    await yard.submit("last-moment", ttl_s=60)
    yard.clock.ahead_s = HOUR_S
    taken: list[Delivery] = []

    async def take_first(connection: Connection) -> Any:
        taken.append(await yard.take())
        return await consumers(connection)

    consumers = queue.consumers
    monkeypatch.setattr(queue, "consumers", take_first)
    await yard.reaper.look()
    assert await yard.result("last-moment") is None
    await taken[0].ack()


async def test_a_job_that_a_worker_says_it_runs_is_left_alone(yard: Yard) -> None:
    """The broker may have died before it had written down that it delivered the job."""
    await yard.add_model()
    await yard.submit("runs", ttl_s=60)
    now = datetime.now(UTC)
    engine = EngineStatus(yard.model, EngineState.READY, 1, (yard.id("runs"),), 0)
    await put_status(yard.connection, WorkerStatus("w", "h", 1, now, now, False, (engine,)))
    yard.clock.ahead_s = HOUR_S
    await yard.reaper.look()
    assert await yard.result("runs") is None
    await remove_status(yard.connection, "w")
    yard.clock.ahead_s += 60
    await yard.reaper.look()
    assert (await yard.result("runs")).status is Status.EXPIRED


async def forgotten_delivery(server: NatsServer, connection: Connection) -> Yard:
    """A job `storing` that a broker delivered, and was killed before it wrote that down. Mostly the first is one."""
    for _ in range(20):
        yard = Yard(connection)
        await yard.add_model()
        sequence = await yard.submit("storing", ttl_s=0.5)
        await yard.take()
        await server.kill()
        await server.start()
        async with asyncio.timeout(30):
            while not connection.nc.is_connected:
                await asyncio.sleep(0.01)
        info = await connection.js.consumer_info(Stream.JOBS, consumer_name(yard.model, Lane.NORMAL))
        if info.delivered.stream_seq < sequence:
            return yard
        await connection.js.purge_stream(Stream.JOBS)
    raise AssertionError("the broker remembers every delivery: this test tests nothing")


async def test_a_delivery_that_the_broker_forgot_when_it_died_is_remembered_by_its_worker(tmp_path: Path) -> None:
    """Its files are stored, so it is in no engine. With the worker gone the job ends."""
    async with NatsServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection)
        yard = await forgotten_delivery(server, connection)
        yard.clock.ahead_s = 4  # overdue, and no worker has had the time to say anything
        await yard.reaper.look()
        assert await yard.result("storing") is None
        now = datetime.now(UTC)
        engine = EngineStatus(yard.model, EngineState.READY, 1, (), held=1)
        await put_status(connection, WorkerStatus("w", "h", 1, now, now, False, (engine,)))
        yard.clock.ahead_s = HOUR_S
        await yard.reaper.look()
        assert await yard.result("storing") is None
        await remove_status(connection, "w")
        yard.clock.ahead_s += 60
        await yard.reaper.look()
        assert (await yard.result("storing")).status is Status.EXPIRED


async def test_a_job_older_than_its_consumer_is_given_the_time_of_a_run(yard: Yard) -> None:
    """A worker may run it still, lent by the consumer that was there before."""
    spec = await yard.add_model()
    await yard.submit("lent", ttl_s=60)
    await yard.take()
    for lane in Lane:
        await yard.connection.js.delete_consumer(Stream.JOBS, consumer_name(yard.model, lane))
    await yard.reaper.look()
    yard.clock.ahead_s = 120
    await yard.reaper.look()
    assert await yard.result("lent") is None
    yard.clock.ahead_s = 120 + spec.timeouts.load_s + spec.timeouts.run_s
    await yard.reaper.look()
    assert (await yard.result("lent")).status is Status.EXPIRED


async def test_bytes_that_are_no_job_expire_with_their_model(yard: Yard) -> None:
    await yard.add_model(queue_s=60)
    sequences = []
    for data, headers in [
        (b"", None),
        (b"{", None),
        (b"\xff\xfe", {"Content-Type": "application/json"}),
        (b"{}", {"Status": "204", "Nats-Sequence": "1", "Nats-Subject": "jobs.a.b.high"}),
        (b"{}", {"nats-msg-id": "a.b", "status": "503"}),
    ]:
        ack = await yard.connection.js.publish(f"jobs.t.{yard.model}.low", data, headers=headers)
        sequences.append(ack.seq)
    await yard.submit("a-job-behind-them", ttl_s=60, lane=Lane.LOW)
    yard.clock.ahead_s = 100
    await yard.reaper.look()
    for job_id in [*(f"seq-{sequence}" for sequence in sequences), "a-job-behind-them"]:
        assert (await yard.result(job_id)).status is Status.EXPIRED
    assert await yard.waiting() == 0


async def test_a_message_that_is_all_metadata_expires_without_it(yard: Yard) -> None:
    """With it the result would fit no message."""
    await yard.add_model(queue_s=60)
    note = "x" * (yard.connection.max_payload_bytes - 200)
    body = msgspec.json.encode({"input": {}, "ttl_s": 60, "metadata": {"note": note}})
    ack = await yard.connection.js.publish(f"jobs.t.{yard.model}.low", body)
    yard.clock.ahead_s = 100
    await yard.reaper.look()
    result = await yard.result(f"seq-{ack.seq}")
    assert (result.status, result.metadata) == (Status.EXPIRED, {})


async def test_a_squatted_result_ends_an_overdue_job(yard: Yard) -> None:
    await yard.add_model()
    await yard.submit("squatted", ttl_s=5)
    await yard.reaper.look()
    await yard.connection.js.publish(f"results.t.{yard.model}.{yard.id('squatted')}", b"no result")
    yard.clock.ahead_s = 10  # due, and too early for another comparison with all results
    await yard.reaper.look()
    assert await yard.waiting() == 0
    assert len(yard.done(Rule.EXPIRED)) == 1


async def test_a_queued_job_that_was_canceled_is_removed(yard: Yard) -> None:
    """Whether it was canceled before the reaper saw it, or after."""
    await yard.add_model()
    await yard.submit("before")
    await yard.cancel("before")
    await yard.submit("after")
    await yard.submit("stays")
    await yard.reaper.look()
    assert await yard.waiting() == 2
    await yard.cancel("after")
    yard.clock.ahead_s = 31
    await yard.reaper.look()
    assert await yard.waiting() == 1
    assert len(yard.done(Rule.ENDED)) == 2
    assert (await yard.result("after")).status is Status.CANCELED


async def test_a_delivered_job_with_a_result_is_left_to_its_redelivery(yard: Yard) -> None:
    await yard.add_model()
    await yard.submit("committed")
    delivery = await yard.take()
    await yard.cancel("committed")
    await yard.reaper.look()
    assert await yard.waiting() == 1
    await delivery.ack()


async def test_jobs_for_no_model_and_no_lane_fail_and_are_kept(yard: Yard) -> None:
    await yard.add_model()
    await yard.submit("lost", model="nothing")
    await yard.connection.js.publish(f"jobs.t.{yard.model}.urgent", b"\xff", headers={"Nats-Msg-Id": yard.id("urgent")})
    await yard.connection.js.publish(f"jobs.tén.{yard.model}.normal", b"{}")
    await yard.reaper.look()
    lost = await get_result(yard.connection, "t", "nothing", yard.id("lost"))
    assert (lost.status, lost.error.code) == (Status.FAILED, ErrorCode.UNKNOWN_MODEL)
    assert (await yard.result("urgent")).error.code is ErrorCode.INVALID_INPUT
    assert await yard.waiting() == await yard.waiting("nothing") == 0
    assert len(yard.done(Rule.UNROUTABLE)) == 3
    kept = await yard.connection.js.get_last_msg(Stream.DEAD, f"dead.t.{yard.model}.{yard.id('urgent')}")
    assert kept.data == b"\xff"


async def test_messages_that_cannot_be_kept_whole_hold_up_nobody(yard: Yard, nats_server: NatsServer) -> None:
    """One fills its message to the last byte, and others have headers that are no text."""
    await yard.add_model()
    reader, writer = await asyncio.open_connection("127.0.0.1", nats_server.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
    for line in (b"Foo: \xff\xfe", b"\xff: 1", b"no colon", b"Nats-Msg-Id: \xff", b": :", b"A: b\r\n c"):
        headers = b"NATS/1.0\r\n" + line + b"\r\n\r\n"
        head = b"HPUB jobs.t.nothing.high %d %d\r\n" % (len(headers), len(headers) + 2)
        writer.write(head + headers + b"{}\r\n")
    writer.write(b"PING\r\n")
    while not (await reader.readline()).startswith(b"PONG"):
        pass
    writer.close()
    large = b"x" * (yard.connection.max_payload_bytes - 50)
    await yard.connection.js.publish("jobs.t.nothing.low", large, headers={"Nats-Msg-Id": yard.id("large")})
    await yard.submit("last", model="nothing")
    assert await yard.waiting("nothing") == 8
    await yard.reaper.look()
    for job_id in ("large", "last"):
        assert await get_result(yard.connection, "t", "nothing", yard.id(job_id)) is not None
    assert await yard.waiting("nothing") == 0
    kept = await yard.connection.js.get_last_msg(Stream.DEAD, f"dead.t.nothing.{yard.id('large')}")
    assert kept.headers["Headrace-Reason"].startswith("unknown model 'nothing'")


async def test_a_model_that_is_removed_ends_what_waits_for_it(yard: Yard) -> None:
    await yard.add_model()
    await yard.submit("waits")
    await yard.reaper.look()
    await remove_model(yard.connection, yard.model)
    await yard.reaper.look()
    assert (await yard.result("waits")).error.code is ErrorCode.UNKNOWN_MODEL


@pytest.mark.parametrize("earlier", [False, True])
async def test_a_model_that_is_added_during_a_look_keeps_its_jobs(yard: Yard, earlier: bool) -> None:
    """Were the registry read before the queue, its first job would be one of an unknown model.

    Jobs from before are; the first job of the model may stand in the same queue.
    """
    surveyor = yard.reaper._surveyor
    read_registry = surveyor._registry

    async def read_then_add() -> Any:
        models = await read_registry()
        await yard.add_model()
        await yard.submit("first")
        return models

    if earlier:
        await yard.submit("early")
    surveyor._registry = read_then_add
    await yard.reaper.look()
    assert await yard.result("first") is None
    assert len(yard.done(Rule.UNROUTABLE)) == earlier


async def test_consumers_that_were_deleted_are_made_again_with_their_lease(yard: Yard) -> None:
    await yard.add_model()
    js = yard.connection.js
    await yard.submit("waits")
    await js.delete_consumer(Stream.JOBS, consumer_name(yard.model, Lane.NORMAL))
    await yard.reaper.look()
    assert [act for act in yard.done(Rule.CONSUMERS) if "30 s" in act] == yard.done(Rule.CONSUMERS) != []
    assert (await yard.take()).subject == f"jobs.t.{yard.model}.normal"
    told = len(yard.told)
    await yard.reaper.look()
    assert len(yard.told) == told


async def test_without_a_registry_nothing_is_ended(tmp_path) -> None:
    """Every job would look like one for an unknown model."""
    async with NatsServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection)
        yard = Yard(connection)
        await yard.add_model()
        await yard.submit("waits")
        await connection.js.delete_key_value("MODELS")
        await yard.reaper.look()
        assert await yard.waiting() == 1
        assert isinstance(yard.told[0], Trouble)


async def test_the_trouble_of_one_rule_does_not_stop_the_others(yard: Yard) -> None:
    """A full DEAD: unroutable jobs stay, the others expire."""
    await yard.add_model()
    await yard.submit("lost", model="nowhere")
    await yard.submit("overdue", ttl_s=60)
    info = await yard.connection.js.stream_info(Stream.DEAD)
    old = info.config.max_msg_size
    info.config.max_msg_size = 10
    await yard.connection.js.update_stream(info.config)
    yard.clock.ahead_s = 100
    try:
        await yard.reaper.look()
    finally:
        info.config.max_msg_size = old
        await yard.connection.js.update_stream(info.config)
    assert (await yard.result("overdue")).status is Status.EXPIRED
    [trouble] = [trouble for trouble in yard.told if isinstance(trouble, Trouble)]
    assert trouble.rule is Rule.UNROUTABLE
    assert "bytes and the broker takes" in trouble.error
    assert await yard.waiting("nowhere") == 1
    await yard.reaper.look()
    assert await yard.waiting("nowhere") == 0


async def test_a_full_stream_of_results_keeps_overdue_jobs_for_later(yard: Yard) -> None:
    await yard.add_model()
    await yard.submit("overdue", ttl_s=60)
    js = yard.connection.js
    info = await js.stream_info(Stream.RESULTS)
    old = info.config.max_bytes
    info.config.max_bytes = 1
    await js.update_stream(info.config)
    yard.clock.ahead_s = 100
    try:
        await yard.reaper.look()
    finally:
        info.config.max_bytes = old
        await js.update_stream(info.config)
    assert await yard.waiting() == 1
    await yard.reaper.look()
    assert (await yard.result("overdue")).status is Status.EXPIRED
    with pytest.raises(nats.js.errors.NotFoundError):
        await js.get_msg(Stream.JOBS, seq=1, subject=f"jobs.t.{yard.model}.normal", next=True)


async def test_ten_thousand_waiting_jobs_cost_few_requests(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each body is read once; a queue that stands still costs the same however long it is."""
    await yard.add_model()
    subject = f"jobs.t.{yard.model}.low"
    for start in range(0, 10_000, 500):
        publishes = (yard.connection.js.publish(subject, b'{"input": {}}') for _ in range(start, start + 500))
        await asyncio.gather(*publishes)
    requests: list[str] = []
    publish = yard.connection.nc.publish

    async def counted(subject: str, *args: Any, **options: Any) -> None:
        requests.append(subject)
        await publish(subject, *args, **options)

    monkeypatch.setattr(yard.connection.nc, "publish", counted)  # a request is one, too
    counts = []
    for _ in range(3):
        requests.clear()
        await yard.reaper.look()
        counts.append(len(requests))
        asked = [subject for subject in requests if subject.startswith("$JS.API.DIRECT.GET.JOBS")]
    await yard.submit("one-more", lane=Lane.LOW)
    requests.clear()
    await yard.reaper.look()
    assert counts[0] <= 40, "10 to read, 10 to compare with results, and some to look around"
    assert counts[1:] == [3, 3]
    assert asked == []
    assert len(requests) == 5
    await yard.connection.js.purge_stream(Stream.JOBS, subject=f"jobs.t.{yard.model}.low")


async def test_jobs_that_workers_keep_up_with_are_not_read(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    await yard.add_model()
    for number in range(5):
        await yard.submit(f"taken{number}")
        await yard.take()
    publish = yard.connection.nc.publish

    async def watched(subject: str, *args: Any, **options: Any) -> None:
        assert not subject.startswith("$JS.API.DIRECT.GET.JOBS"), "a job that was delivered is read"
        await publish(subject, *args, **options)

    monkeypatch.setattr(yard.connection.nc, "publish", watched)
    await yard.reaper.look()
    assert not yard.told


async def test_more_jobs_than_fit_in_memory_expire_in_their_order(yard: Yard) -> None:
    await yard.add_model()
    for number in range(30):
        await yard.submit(f"many{number}", ttl_s=60 * (1 + (number * 7) % 30))
    yard.reaper._queue._waiting = waiting = WaitingJobs(limit=8)
    for minute in range(1, 31):
        yard.clock.ahead_s = 60 * minute + 30
        for _ in range(2):  # the second reads what was forgotten
            await yard.reaper.look()
            assert len(waiting) <= 8
        ended = [number for number in range(30) if await yard.result(f"many{number}") is not None]
        assert len(ended) == minute
    assert await yard.waiting() == 0
