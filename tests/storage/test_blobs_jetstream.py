"""What the JetStream store promises beyond the port: other tools read it, nothing is left behind, nothing hangs."""

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import nats
import pytest
import pytest_asyncio
from blob_servers import some_bytes
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ObjectMeta, ObjectMetaOptions
from nats.js.object_store import ObjectStore

from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import BlobMismatch, BlobNotFound, BlobUnavailable
from headrace_local.nats_server import NatsServer
from headrace_storage.blobs import JetStreamBlobs
from headrace_storage.blobs.chunks import CHUNK_BYTES
from headrace_storage.blobs.object_stream import ObjectStream, StoredMessage

pytestmark = pytest.mark.slow

DEADLINE_S = 20.0


class LaterClock(SystemClock):
    """The machine's clock, an hour ahead."""

    def now(self) -> datetime:
        return super().now() + timedelta(hours=1)


@pytest_asyncio.fixture(loop_scope="module")
async def nc(nats_server: NatsServer) -> AsyncIterator[Client]:
    connection = await nats.connect(nats_server.url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(loop_scope="module")
async def store(nc: Client) -> AsyncIterator[JetStreamBlobs]:
    async with JetStreamBlobs(nc) as opened:
        yield opened
    await nc.jetstream().delete_object_store("headrace")


async def foreign(nc: Client) -> ObjectStore:
    """The same bucket through nats-py's own object store."""
    return await nc.jetstream().object_store("headrace")


async def messages(nc: Client) -> int:
    return (await nc.jetstream().stream_info("OBJ_headrace")).state.messages


async def test_other_clients_read_our_blobs(nc: Client, store: JetStreamBlobs) -> None:
    data = some_bytes(3 * CHUNK_BYTES + 1)
    await store.put("ours", data, "image/png")
    found = await (await foreign(nc)).get("ours")
    assert found.data == data
    assert found.info.size == len(data)
    assert found.info.chunks == 4
    assert found.info.headers == {"Content-Type": ["image/png"]}


@pytest.mark.parametrize("chunk_size", [1000, 300_000])
async def test_we_read_blobs_of_other_clients(nc: Client, store: JetStreamBlobs, chunk_size: int) -> None:
    data = some_bytes(1_000_001)
    options = ObjectMetaOptions(max_chunk_size=chunk_size)
    await (await foreign(nc)).put("theirs", io.BytesIO(data), ObjectMeta(options=options))
    assert await store.get("theirs") == data
    assert await store.get("theirs", start=654_321, length=123_456) == data[654_321 : 654_321 + 123_456]
    assert (await store.stat("theirs")).content_type == "application/octet-stream"
    assert [info.key async for info in store.list("the")] == ["theirs"]


async def test_a_blob_deleted_by_another_client_is_gone(nc: Client, store: JetStreamBlobs) -> None:
    await store.put("theirs", b"x", "text/plain")
    await (await foreign(nc)).delete("theirs")
    with pytest.raises(BlobNotFound):
        await store.stat("theirs")
    assert [info async for info in store.list("")] == []
    await store.put("theirs", b"again", "text/plain")
    assert await store.get("theirs") == b"again"


async def test_a_record_that_makes_no_sense_is_no_blob(nc: Client, store: JetStreamBlobs) -> None:
    await nc.jetstream().publish("$O.headrace.M.eA==", b"not json")  # the record of `x`
    await nc.jetstream().publish("$O.headrace.M.eQ==", b'{"name": 1}')
    await store.put("z", b"x", "text/plain")
    assert [info.key async for info in store.list("")] == ["z"]
    with pytest.raises(BlobNotFound):
        await store.get("x")


async def test_chunks_of_an_overwritten_blob_are_purged(nc: Client, store: JetStreamBlobs) -> None:
    await store.put("k", some_bytes(5 * CHUNK_BYTES), "text/plain")
    await store.put("k", some_bytes(2 * CHUNK_BYTES), "text/plain")
    assert await messages(nc) == 1 + 2


async def test_puts_of_one_key_at_the_same_time_leave_no_chunks_behind(nc: Client, store: JetStreamBlobs) -> None:
    await asyncio.gather(*(store.put("k", some_bytes(3 * CHUNK_BYTES), "text/plain") for _ in range(8)))
    assert await messages(nc) == 1 + 3


async def test_nothing_is_left_of_a_deleted_blob(nc: Client, store: JetStreamBlobs) -> None:
    await store.put("k", some_bytes(3 * CHUNK_BYTES), "text/plain")
    await store.delete("k")
    assert await messages(nc) == 0


@pytest.mark.parametrize("lost", [0, 2, 4])
async def test_missing_chunks_are_an_error_and_no_hang(nc: Client, store: JetStreamBlobs, lost: int) -> None:
    await store.put("k", some_bytes(5 * CHUNK_BYTES), "text/plain")
    first = (await nc.jetstream().stream_info("OBJ_headrace")).state.first_seq
    await nc.jetstream().delete_msg("OBJ_headrace", first + lost)
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(BlobMismatch, match="not all of its 5 chunks"):
            await store.get("k")
        with pytest.raises(BlobMismatch, match="not all of its 5 chunks"):
            await store.get("k", start=lost * CHUNK_BYTES, length=10)


async def test_all_chunks_missing_is_an_error_and_no_hang(nc: Client, store: JetStreamBlobs) -> None:
    await store.put("k", some_bytes(5 * CHUNK_BYTES), "text/plain")
    await nc.jetstream().purge_stream("OBJ_headrace", subject="$O.headrace.C.>")
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(BlobMismatch):
            await store.get("k")


async def test_a_blob_replaced_while_it_is_read_is_read_anew(
    store: JetStreamBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = some_bytes(40 * CHUNK_BYTES), some_bytes(30 * CHUNK_BYTES)
    await store.put("k", old, "text/plain")
    real_batch, replaced = ObjectStream.batch, asyncio.Event()

    async def batch(stream: ObjectStream, key: str, subject: str, from_seq: int, count: int) -> list[StoredMessage]:
        found = await real_batch(stream, key, subject, from_seq, count)
        if not replaced.is_set():
            replaced.set()
            await store.put("k", new, "text/plain")
        return found

    monkeypatch.setattr(ObjectStream, "batch", batch)
    assert await store.get("k") == new
    assert replaced.is_set()


async def test_a_blob_whose_confirmation_was_lost_is_whole(
    store: JetStreamBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Purging after a lost answer would leave a record without its chunks, and the old blob gone."""
    real_publish, data = ObjectStream.publish_record, some_bytes(2 * CHUNK_BYTES)

    async def publish_record(stream: ObjectStream, *args: object) -> None:
        await real_publish(stream, *args)  # type: ignore[arg-type]  # passed on as they came
        raise BlobUnavailable("k", "the answer is lost")

    await store.put("k", b"old", "text/plain")
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStream, "publish_record", publish_record)
        with pytest.raises(BlobUnavailable):
            await store.put("k", data, "text/plain")
    assert await store.get("k") == data


async def test_a_cancellation_that_meets_an_answer_is_not_forgotten(
    nats_server: NatsServer, store: JetStreamBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("k", b"x", "text/plain")
    real_answer, waiting = Client._request_sub_callback, list[asyncio.Task[object]]()

    async def answer(client: Client, message: Msg) -> None:
        await real_answer(client, message)
        while waiting:
            waiting.pop().cancel()

    monkeypatch.setattr(Client, "_request_sub_callback", answer)
    async with await nats.connect(nats_server.url) as nc, JetStreamBlobs(nc) as other:
        for call in (other.stat("k"), other.get("k"), other.put("k", b"y", "text/plain"), other.delete("k")):
            waiting.append(task := asyncio.create_task(call))
            with pytest.raises(asyncio.CancelledError):
                await task
            assert waiting == []
    assert await store.get("k") == b"x"


async def test_uploads_that_were_cut_off_are_discarded_once_they_are_old(nc: Client, store: JetStreamBlobs) -> None:
    await store.put("whole", b"whole", "text/plain")
    for _ in range(3):
        await nc.jetstream().publish("$O.headrace.C.crashed", b"chunk")
    assert await store.discard_unfinished(60) == 0
    assert await messages(nc) == 2 + 3
    async with JetStreamBlobs(nc, clock=LaterClock()) as later:
        assert await later.discard_unfinished(60) == 1
    assert await messages(nc) == 2
    assert await store.get("whole") == b"whole"


async def test_a_full_bucket_refuses_a_blob_and_keeps_the_rest(nc: Client) -> None:
    async with JetStreamBlobs(nc, "small", max_bytes=4 * CHUNK_BYTES) as store:
        await store.put("k", b"kept", "text/plain")
        with pytest.raises(BlobUnavailable, match="full"):
            await store.put("k", some_bytes(8 * CHUNK_BYTES), "text/plain")
        assert await store.get("k") == b"kept"
        assert (await nc.jetstream().stream_info("OBJ_small")).state.messages == 2
    await nc.jetstream().delete_object_store("small")


async def test_a_bucket_that_exists_is_left_as_it_is(nc: Client, store: JetStreamBlobs) -> None:
    await store.put("k", b"kept", "text/plain")
    async with JetStreamBlobs(nc, max_bytes=1 << 20) as again:
        assert await again.get("k") == b"kept"
    config = (await nc.jetstream().stream_info("OBJ_headrace")).config
    assert config.max_bytes == -1
    assert config.storage == "file"


async def test_a_bucket_that_vanished_is_worth_another_try(nc: Client) -> None:
    async with JetStreamBlobs(nc, "vanishing") as store:
        await nc.jetstream().delete_object_store("vanishing")
        with pytest.raises(BlobUnavailable):
            await store.put("k", b"x", "text/plain")
        with pytest.raises(BlobUnavailable):
            await store.get("k")
