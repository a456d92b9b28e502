"""Files that nobody will use any more are removed, and no other: on a JetStream object store, and on S3."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
import pytest
import pytest_asyncio
from blob_servers import ServerRig, freeze, start_jetstream, start_juicefs, thaw

from headrace_contracts import codec
from headrace_contracts.attempts import excused
from headrace_contracts.clock import SystemClock
from headrace_contracts.codec import Encoding
from headrace_contracts.file import Artifact
from headrace_contracts.job import JobBody
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.names import Bucket, Lane, Stream, artifact_prefix
from headrace_contracts.result import Result, Status
from headrace_contracts.settings import NatsSettings, ReaperSettings
from headrace_contracts.tasks.registry import Task
from headrace_local.nats_server import NatsServer
from headrace_storage.attempts import change_attempts, forget_attempts
from headrace_storage.blobs import BlobStore
from headrace_storage.connection import Connection
from headrace_storage.jobs import remove_job, submit_job
from headrace_storage.reaper import Act, Reaper, Rule, Trouble, sweep
from headrace_storage.reaper.duty import Duty
from headrace_storage.registry import add_model
from headrace_storage.results import commit_result, get_result
from headrace_storage.topology import ensure_topology

HOUR_S, DAY_S = 3600.0, 86_400.0
START = {"jetstream": start_jetstream, "juicefs": start_juicefs}


class LateClock(SystemClock):
    """The machine's clock, put forward, so that files are old; leases and waits stay as they are."""

    def __init__(self) -> None:
        self.ahead_s = 2 * HOUR_S

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead_s)


class Attic:
    """A tenant of its own on a broker and a store."""

    def __init__(self, connection: Connection, blobs: BlobStore) -> None:
        self.connection = connection
        self.blobs = blobs
        self.tenant = f"t-{uuid.uuid4().hex[:8]}"
        self.model = f"m-{uuid.uuid4().hex[:8]}"
        self.clock = LateClock()
        self.told: list[Act | Trouble] = []
        self.duty = Duty(connection, self.clock, lambda: None, self.told.append)
        self.reaper = Reaper(self.duty, blobs, ReaperSettings())

    async def submit(self, job_id: str, task_input: bytes = b"{}", encoding: Encoding = Encoding.JSON) -> int:
        body = JobBody(msgspec.Raw(task_input))
        receipt = await submit_job(
            self.connection, self.tenant, self.model, Lane.NORMAL, body, encoding, f"{job_id}-{self.tenant}"
        )
        return receipt.sequence

    async def store(self, job_id: str, attempt: str = "1-abc", name: str = "out.bin") -> str:
        key = artifact_prefix(self.tenant, self.model, f"{job_id}-{self.tenant}", attempt) + name
        await self.blobs.put(key, b"made", "application/octet-stream")
        return key

    async def commit(self, job_id: str, *keys: str) -> None:
        now = datetime.now(UTC)
        artifacts = tuple(Artifact(key.rpartition("/")[2], key, "0" * 64, 4, "x/y") for key in keys)
        result = Result(
            f"{job_id}-{self.tenant}",
            self.model,
            "1",
            Status.SUCCEEDED,
            msgspec.Raw(codec.encode(None, Encoding.MSGPACK)),
            1,
            now,
            now,
            artifacts=artifacts,
        )
        await commit_result(self.connection, self.tenant, result, Encoding.MSGPACK)

    def subject(self, job_id: str) -> str:
        return f"results.{self.tenant}.{self.model}.{job_id}-{self.tenant}"

    async def sweep(self) -> None:
        await self.reaper.sweep()
        assert not [trouble for trouble in self.told if isinstance(trouble, Trouble)], self.told

    async def keys(self) -> set[str]:
        return {info.key async for info in self.blobs.list(f"{self.tenant}/")}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(START))
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerRig]:
    async with START[request.param](tmp_path_factory.mktemp(request.param)) as rig:
        yield rig


@pytest_asyncio.fixture
async def attic(nats_server: NatsServer, store: ServerRig) -> AsyncIterator[Attic]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection, store.open() as blobs:
        await ensure_topology(connection)
        yield Attic(connection, blobs)


async def test_files_of_lost_attempts_go_and_those_of_the_result_stay(attic: Attic) -> None:
    lost, won = await attic.store("done", "1-aaa"), await attic.store("done", "2-bbb")
    vanished = await attic.store("nowhere")
    await attic.commit("done", won)
    await attic.sweep()
    assert await attic.keys() == {won}
    assert {act.what for act in attic.told} == {lost, vanished}
    await attic.sweep()
    assert await attic.keys() == {won}


async def test_young_files_stay_whatever_is_known_of_them(attic: Attic) -> None:
    attic.clock.ahead_s = 0
    keys = {await attic.store("done"), await attic.store("nowhere")}
    await attic.commit("done")
    await attic.sweep()
    assert await attic.keys() == keys


async def test_files_of_a_job_in_the_queue_stay(attic: Attic) -> None:
    """It waits for its next attempt, or runs; the files of the last one go when it has ended."""
    sequence = await attic.submit("queued")
    key = await attic.store("queued")
    await attic.sweep()
    assert await attic.keys() == {key}
    await attic.commit("queued")
    await remove_job(attic.connection, sequence)
    await attic.sweep()
    assert await attic.keys() == set()


async def test_files_go_with_the_result_that_names_them(attic: Attic) -> None:
    """Also those that an earlier sweep has seen to be named."""
    key = await attic.store("old")
    await attic.commit("old", key)
    await attic.sweep()
    await attic.connection.js.purge_stream(Stream.RESULTS, subject=attic.subject("old"))
    attic.clock.ahead_s = 7 * DAY_S + HOUR_S
    await attic.sweep()
    assert await attic.keys() == set()


async def test_a_result_that_cannot_be_read_keeps_its_files(attic: Attic) -> None:
    """A later version may have written it. One with more fields than we know can be read."""
    key, kept, orphan = (
        await attic.store("squatted"),
        await attic.store("newer", "1-a"),
        await attic.store("newer", "2-b"),
    )
    await attic.connection.js.publish(attic.subject("squatted"), b"\x81no result")
    newer = {"status": "postponed", "artifacts": [{"$blob": kept, "hue": 1}], "colour": [1]}
    await attic.connection.js.publish(attic.subject("newer"), msgspec.json.encode(newer))
    await attic.sweep()
    assert await attic.keys() == {key, kept}
    assert orphan in {act.what for act in attic.told}


@pytest.mark.parametrize("encoding", list(Encoding))
async def test_inputs_go_after_a_week_unless_a_job_names_them(attic: Attic, encoding: Encoding) -> None:
    named, nested, other = (f"{attic.tenant}/inputs/{name}" for name in ("named", "a/b/c.wav", "other"))
    for key in (named, nested, other):
        await attic.blobs.put(key, b"sound", "audio/wav")
    attic.clock.ahead_s = 6.9 * DAY_S
    await attic.sweep()
    assert await attic.keys() == {named, nested, other}
    value = {"deep": [{"audio": {"$blob": named}}], "$blob": nested}
    encoded = codec.encode(value, encoding)
    await attic.submit("reads", encoded.replace(b"/", b"\\/") if encoding is Encoding.JSON else encoded, encoding)
    attic.clock.ahead_s = 7.1 * DAY_S
    await attic.sweep()
    assert await attic.keys() == {named, nested}


async def test_an_artifact_that_another_job_names_as_input_stays_until_it_is_done(attic: Attic) -> None:
    key = await attic.store("first")
    sequence = await attic.submit("second", msgspec.json.encode({"picture": {"$blob": key}}))
    await attic.sweep()
    assert await attic.keys() == {key}
    await remove_job(attic.connection, sequence)
    await attic.sweep()
    assert await attic.keys() == set()


async def test_what_is_not_ours_is_left_alone(attic: Attic) -> None:
    tenant = attic.tenant
    for key in (
        f"{tenant}/notes.txt",
        f"{tenant}/a/b.bin",
        f"{tenant}/m/j/a/b/c",
        f"{tenant}/m.1/j/a/name",
        f"{tenant}.x/inputs/f",
    ):
        await attic.blobs.put(key, b"x", "text/plain")
    before = {info.key async for info in attic.blobs.list(tenant)}
    await attic.connection.js.publish(f"jobs.{tenant}.{attic.model}.normal", b"\xff\xfe", headers={"Status": "204"})
    await attic.connection.js.publish(f"jobs.{tenant}.{attic.model}.normal", b"[" * 100_000)
    attic.clock.ahead_s = 30 * DAY_S
    await attic.sweep()
    assert {info.key async for info in attic.blobs.list(tenant)} == before


async def test_a_file_uploaded_anew_during_the_sweep_stays(attic: Attic, monkeypatch: pytest.MonkeyPatch) -> None:
    attic.clock.ahead_s = 8 * DAY_S
    key = f"{attic.tenant}/inputs/renewed"
    await attic.blobs.put(key, b"sound", "audio/wav")

    async def renew_first(*asked: object) -> object:
        await attic.blobs.put(key, b"sound", "audio/wav")
        attic.clock.ahead_s = 0
        return await queued_of(*asked)  # type: ignore[arg-type]

    queued_of = sweep.queued_of
    monkeypatch.setattr(sweep, "queued_of", renew_first)
    await attic.sweep()
    assert await attic.keys() == {key}


@pytest.mark.parametrize("step", ["named_by_results", "queued_of"])
async def test_a_job_that_ends_between_two_looks_keeps_its_files(
    attic: Attic, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Committed and out of the queue, right after the sweep has looked at results, or at the queue."""
    sequence = await attic.submit("ends")
    key = await attic.store("ends")
    look: Callable[..., Awaitable[object]] = getattr(sweep, step)

    async def look_then_end(*asked: object) -> object:
        seen = await look(*asked)
        await attic.commit("ends", key)
        await remove_job(attic.connection, sequence)
        return seen

    monkeypatch.setattr(sweep, step, look_then_end)
    await attic.sweep()
    assert await attic.keys() == {key}
    assert await get_result(attic.connection, attic.tenant, attic.model, f"ends-{attic.tenant}") is not None


async def test_no_file_of_a_job_that_is_being_committed_is_ever_removed(attic: Attic) -> None:
    """Workers store, commit and settle while sweeps run one after another, and every file is old."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    ended: list[str] = []

    async def work(number: int) -> None:
        sequence = await attic.submit(f"j{number}")
        await asyncio.sleep(rng.uniform(0, 0.3))
        lost, won = await attic.store(f"j{number}", "1-lost"), await attic.store(f"j{number}", "2-won")
        await attic.commit(f"j{number}", won)
        await asyncio.sleep(rng.choice((0, 0.01)))
        await remove_job(attic.connection, sequence)
        ended.extend((lost, won))

    working = asyncio.gather(*(work(number) for number in range(40)))
    sweeps = 0
    while not working.done():
        await attic.sweep()
        sweeps += 1
    await working
    assert sweeps > 1
    await attic.sweep()
    assert await attic.keys() == {key for key in ended if "/2-won/" in key}


async def test_a_store_that_hangs_does_not_stop_the_rules_for_jobs(attic: Attic, store: ServerRig) -> None:
    spec = ModelSpec(attic.model, Task.SYNTHETIC, EngineKind.SYNTHETIC)
    await add_model(attic.connection, spec)
    await attic.store("nowhere")
    freeze(store.pid)
    reaping = asyncio.create_task(attic.reaper.run())
    try:
        await attic.connection.js.publish(
            f"jobs.{attic.tenant}.no-model.low", b"{}", headers={"Nats-Msg-Id": attic.tenant}
        )
        async with asyncio.timeout(30):
            while await get_result(attic.connection, attic.tenant, "no-model", attic.tenant) is None:
                await asyncio.sleep(0.02)
    finally:
        thaw(store.pid)
        reaping.cancel()
        await asyncio.wait([reaping])


async def test_a_store_that_does_not_answer_is_told_and_tried_again(attic: Attic, store: ServerRig) -> None:
    key = await attic.store("nowhere")
    async with store.open(patience_s=1.0) as blobs:
        reaper = Reaper(attic.duty, blobs, ReaperSettings())
        freeze(store.pid)
        try:
            await reaper.sweep()
        finally:
            thaw(store.pid)
        assert [trouble.rule for trouble in attic.told if isinstance(trouble, Trouble)] == [Rule.ARTIFACTS]
        assert key in await attic.keys()
        async with asyncio.timeout(60):
            while await attic.keys():  # a store that was frozen may need a while
                await reaper.sweep()


async def test_records_of_attempts_go_with_their_jobs(attic: Attic) -> None:
    await attic.submit("queued")
    sequence = await attic.submit("ended")
    for job_id in ("queued", "ended", "nowhere", "forgotten"):
        await change_attempts(
            attic.connection, attic.tenant, attic.model, f"{job_id}-{attic.tenant}", partial(excused, delivery=1)
        )
    await forget_attempts(attic.connection, attic.tenant, attic.model, f"forgotten-{attic.tenant}")
    await attic.commit("ended")
    await remove_job(attic.connection, sequence)
    await attic.sweep()
    left = await attic.connection.js.stream_info(
        f"KV_{Bucket.ATTEMPTS}", subjects_filter=f"$KV.{Bucket.ATTEMPTS}.{attic.tenant}.>"
    )
    assert list(left.state.subjects or {}) == [
        f"$KV.{Bucket.ATTEMPTS}.{attic.tenant}.{attic.model}.queued-{attic.tenant}"
    ]
