"""What every blob store promises, tried on each: in memory, JetStream, SeaweedFS, and MinIO's S3 server (JuiceFS)."""

import asyncio
import hashlib
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from blob_servers import PATIENCE_S, START, Bottleneck, MemoryRig, Rig, ServerRig, freeze, http, some_bytes, thaw

from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import (
    BlobError,
    BlobForbidden,
    BlobMismatch,
    BlobNotFound,
    BlobUnavailable,
    PresignUnsupported,
)
from headrace_storage.blobs import BlobStore, sweep
from headrace_storage.blobs.chunks import CHUNK_BYTES

pytestmark = pytest.mark.slow

MB = 1024 * 1024
SIZES = [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, MB, 64 * MB]
# Far above what any answer takes, far below "it hangs".
DEADLINE_S = 30.0


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", *START])
async def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryRig()
        else:
            folder = tmp_path_factory.mktemp(request.param)
            yield await stack.enter_async_context(START[request.param](folder))


@pytest_asyncio.fixture(loop_scope="module")
async def store(rig: Rig) -> AsyncIterator[BlobStore]:
    async with rig.open() as opened:
        yield opened


# For what only some stores have: a server to lose, and URLs.
on_servers = pytest.mark.parametrize("rig", START, indirect=True)
on_s3 = pytest.mark.parametrize("rig", ["weed", "juicefs"], indirect=True)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_empty(folder: Path) -> bool:
    return list(folder.iterdir()) == []


# A blob comes back.


@pytest.mark.parametrize("size", SIZES)
async def test_bytes_come_back_as_they_were_put(store: BlobStore, size: int) -> None:
    data = some_bytes(size)
    before = datetime.now(UTC)
    info = await store.put("sizes/bytes", data, "image/png")
    assert (info.key, info.size_bytes, info.sha256) == ("sizes/bytes", size, sha256(data))
    seen = await store.stat("sizes/bytes")
    assert (seen.size_bytes, seen.sha256, seen.content_type) == (size, sha256(data), "image/png")
    # S3 tells whole seconds.
    assert abs(seen.stored_at - before) < timedelta(minutes=1)
    assert abs(info.stored_at - before) < timedelta(minutes=1)
    assert await store.get("sizes/bytes") == data


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_comes_back_as_it_was_put(store: BlobStore, size: int, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(some_bytes(size))
    info = await store.put("sizes/file", source, "audio/wav")
    assert (info.size_bytes, info.sha256) == (size, sha256(source.read_bytes()))
    await store.get_to("sizes/file", target, size_bytes=size, sha256=info.sha256)
    assert target.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


@on_servers
async def test_a_large_file_never_lies_in_memory_whole(rig: ServerRig, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(some_bytes(64 * MB))
    async with rig.open() as store:
        tracemalloc.start()
        try:
            info = await store.put("large", source, "application/octet-stream")
            await store.get_to("large", tmp_path / "target", size_bytes=info.size_bytes, sha256=info.sha256)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak_bytes < 48 * MB


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (0, 10),
        (5, 1),
        (7, 0),
        (CHUNK_BYTES - 1, 2),
        (CHUNK_BYTES, CHUNK_BYTES),
        (2 * CHUNK_BYTES + 3, None),
        (0, 10 * CHUNK_BYTES),
        (3 * CHUNK_BYTES + 99, 10),
        (3 * CHUNK_BYTES + 100, 10),
        (10 * CHUNK_BYTES, None),
    ],
)
async def test_a_range_is_that_part_of_the_blob(store: BlobStore, start: int, length: int | None) -> None:
    data = some_bytes(3 * CHUNK_BYTES + 100)
    await store.put("ranges", data, "text/plain")
    end = None if length is None else start + length
    assert await store.get("ranges", start=start, length=length) == data[start:end]


async def test_ranges_of_blobs_uploaded_at_the_same_time_are_not_mixed_up(store: BlobStore) -> None:
    blobs = {f"interleaved/{n}": some_bytes(12 * CHUNK_BYTES) for n in range(4)}
    await asyncio.gather(*(store.put(key, data, "text/plain") for key, data in blobs.items()))
    for key, data in blobs.items():
        for start in (CHUNK_BYTES, 5 * CHUNK_BYTES + 1, 11 * CHUNK_BYTES + 7):
            assert await store.get(key, start=start, length=1000) == data[start : start + 1000]


# One key, several blobs.


async def test_the_last_put_wins(store: BlobStore) -> None:
    await store.put("twice", b"first, and longer", "text/plain")
    await store.put("twice", b"second", "text/html")
    assert await store.get("twice") == b"second"
    seen = await store.stat("twice")
    assert (seen.size_bytes, seen.sha256, seen.content_type) == (6, sha256(b"second"), "text/html")


async def test_puts_of_one_key_at_the_same_time_leave_one_whole_blob(store: BlobStore) -> None:
    blobs = [some_bytes(3 * CHUNK_BYTES + n) for n in range(6)]
    await asyncio.gather(*(store.put("contended", data, "text/plain") for data in blobs))
    # `get` checks the hash, so no mix passes here.
    winner = await store.get("contended")
    assert winner in blobs
    assert (await store.stat("contended")).sha256 == sha256(winner)


@on_servers
@pytest.mark.parametrize("cut", [True, False], ids=["connection cut", "connection stuck and put cancelled"])
async def test_a_put_that_is_cut_off_leaves_the_old_blob(rig: ServerRig, cut: bool) -> None:
    old, new = some_bytes(2 * MB), some_bytes(24 * MB)
    async with rig.open() as store:
        await store.put("cut", old, "text/plain")
        async with (
            Bottleneck(rig.url, 18 * MB, cut=cut) as bottleneck,
            rig.open_at(bottleneck.url, PATIENCE_S) as far_store,
            asyncio.timeout(DEADLINE_S),
        ):
            put = asyncio.create_task(far_store.put("cut", new, "text/plain"))
            await bottleneck.reached.wait()
            if not cut:
                put.cancel()
            with pytest.raises(BlobUnavailable if cut else asyncio.CancelledError):
                await put
            assert await store.get("cut") == old
        # Nor once the other side has given up for good.
        assert await store.get("cut") == old
        assert [info.key async for info in store.list("cut")] == ["cut"]


# What is there, and what is not.


async def test_a_deleted_blob_is_gone_and_deleting_it_again_is_no_error(store: BlobStore) -> None:
    await store.put("gone/blob", b"x", "text/plain")
    await store.delete("gone/blob")
    with pytest.raises(BlobNotFound):
        await store.get("gone/blob")
    await store.delete("gone/blob")
    await store.put("gone/blob", b"again", "text/plain")
    assert await store.get("gone/blob") == b"again"


@pytest.mark.parametrize("key", ["never/was", "", "/etc/passwd", "a/../b", "x" * 100_000, "a b\r\n", "a//b"])
async def test_a_missing_blob_is_an_error_of_its_own(store: BlobStore, key: str, tmp_path: Path) -> None:
    reads: list[Callable[[], Awaitable[object]]] = [
        lambda: store.get(key),
        lambda: store.get(key, start=3, length=0),
        lambda: store.stat(key),
        lambda: store.get_to(key, tmp_path / "target", size_bytes=1, sha256=sha256(b"")),
    ]
    for read in reads:
        with pytest.raises(BlobNotFound):
            await read()
    assert is_empty(tmp_path)
    # The store is as usable as before.
    await store.put("still/here", b"x", "text/plain")


@pytest.mark.parametrize("key", ["", "/absolute", "a/../b", "x" * 513, "жук", "a//b", "-rf"])
async def test_what_is_no_key_is_refused(store: BlobStore, key: str) -> None:
    with pytest.raises(BlobError, match="is no key"):
        await store.put(key, b"x", "text/plain")


async def test_a_list_has_the_blobs_below_a_prefix(store: BlobStore) -> None:
    keys = {"listed/job-1/a.png", "listed/job-1/sub/b.png", "listed/job-10/c.png", "listed/job-2/d.png"}
    for key in keys:
        await store.put(key, key.encode(), "text/plain")
    assert {info.key async for info in store.list("listed/")} == keys
    assert {info.key async for info in store.list("listed/job-1/")} == {k for k in keys if "job-1/" in k}
    assert {info.key async for info in store.list("listed/job-1")} == {k for k in keys if "job-1" in k}
    sizes = {info.key: info.size_bytes async for info in store.list("listed/")}
    assert sizes == {key: len(key) for key in keys}
    assert [info async for info in store.list("listed/nothing")] == []


class LaterClock(SystemClock):
    """The machine's clock, set ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + self._ahead


async def test_expired_blobs_are_swept(store: BlobStore) -> None:
    for key in ("swept/a", "swept/b", "kept/c"):
        await store.put(key, b"x", "text/plain")
    assert await sweep(store, "swept/", 3600, SystemClock()) == 0
    assert {info.key async for info in store.list("swept/")} == {"swept/a", "swept/b"}
    assert await sweep(store, "swept/", 3600, LaterClock(timedelta(hours=2))) == 2
    assert [info async for info in store.list("swept/")] == []
    assert await store.get("kept/c") == b"x"


# Bytes that are not what they should be.


async def test_damaged_bytes_are_never_returned(rig: Rig, store: BlobStore, tmp_path: Path) -> None:
    data = some_bytes(2 * CHUNK_BYTES)
    info = await store.put("damaged", data, "text/plain")
    await rig.corrupt("damaged", bytes(reversed(data)))
    with pytest.raises(BlobMismatch, match="sha256"):
        await store.get("damaged")
    with pytest.raises(BlobMismatch, match="sha256"):
        await store.get("damaged", start=0, length=info.size_bytes)
    with pytest.raises(BlobMismatch, match="sha256"):
        await store.get_to("damaged", tmp_path / "target", size_bytes=info.size_bytes, sha256=info.sha256)
    assert is_empty(tmp_path)


@pytest.mark.parametrize("wrong", ["hash", "larger", "smaller"])
async def test_a_blob_that_is_not_the_promised_one_becomes_no_file(
    store: BlobStore, tmp_path: Path, wrong: str
) -> None:
    data = some_bytes(MB)
    await store.put("promised", data, "text/plain")
    size_bytes = len(data) + {"hash": 0, "larger": -1, "smaller": 1}[wrong]
    promised = sha256(b"other bytes") if wrong == "hash" else sha256(data)
    with pytest.raises(BlobMismatch):
        await store.get_to("promised", tmp_path / "target", size_bytes=size_bytes, sha256=promised)
    assert is_empty(tmp_path)


async def test_a_file_that_was_there_survives_a_failed_download(store: BlobStore, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"before")
    await store.put("promised", b"after", "text/plain")
    with pytest.raises(BlobMismatch):
        await store.get_to("promised", target, size_bytes=5, sha256=sha256(b"other"))
    assert target.read_bytes() == b"before"
    await store.get_to("promised", target, size_bytes=5, sha256=sha256(b"after"))
    assert target.read_bytes() == b"after"


# URLs.


async def test_anybody_may_use_a_url_until_it_expires(rig: Rig, store: BlobStore) -> None:
    if not rig.has_urls:
        for presign in (store.presign_get, store.presign_put):
            with pytest.raises(PresignUnsupported):
                await presign("url/blob", 60)
        return
    await store.put("url/blob", b"0123456789", "text/plain")
    read, write = await store.presign_get("url/blob", 60), await store.presign_put("url/upload", 60)
    assert await asyncio.to_thread(http, "GET", read) == (200, b"0123456789")
    assert await asyncio.to_thread(http, "GET", read, None, {"Range": "bytes=2-4"}) == (206, b"234")
    assert (await asyncio.to_thread(http, "PUT", write, b"uploaded"))[0] == 200
    assert await store.get("url/upload") == b"uploaded"
    # A URL is for one key and one method.
    assert (await asyncio.to_thread(http, "GET", read.replace("url/blob", "url/upload")))[0] == 403
    assert (await asyncio.to_thread(http, "PUT", read, b"forged"))[0] == 403
    for url, method in (
        (await store.presign_get("url/blob", 1), "GET"),
        (await store.presign_put("url/late", 1), "PUT"),
    ):
        async with asyncio.timeout(DEADLINE_S):
            while (await asyncio.to_thread(http, method, url, b"late" if method == "PUT" else None))[0] != 403:
                await asyncio.sleep(0.1)
    for expires_s in (0.0, 7 * 24 * 3600 + 1.0):
        with pytest.raises(ValueError, match="expires_s"):
            await store.presign_get("url/blob", expires_s)


@on_s3
async def test_a_blob_uploaded_by_url_is_checked_against_its_reference(store: BlobStore, tmp_path: Path) -> None:
    url = await store.presign_put("url/input", 60)
    assert (await asyncio.to_thread(http, "PUT", url, b"input"))[0] == 200
    seen = await store.stat("url/input")
    assert (seen.size_bytes, seen.sha256) == (5, "")
    await store.get_to("url/input", tmp_path / "good", size_bytes=5, sha256=sha256(b"input"))
    with pytest.raises(BlobMismatch):
        await store.get_to("url/input", tmp_path / "bad", size_bytes=5, sha256=sha256(b"other"))
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


# A server that says no, or nothing.


def every_call(store: BlobStore, folder: Path) -> dict[str, Callable[[], Awaitable[object]]]:
    async def list_all() -> list[object]:
        return [info async for info in store.list("")]

    return {
        "put": lambda: store.put("lost/new", some_bytes(3 * CHUNK_BYTES), "text/plain"),
        "get": lambda: store.get("lost/old"),
        "get_to": lambda: store.get_to("lost/old", folder / "target", size_bytes=3, sha256=sha256(b"old")),
        "stat": lambda: store.stat("lost/old"),
        "delete": lambda: store.delete("lost/old"),
        "list": list_all,
    }


@on_servers
async def test_wrong_credentials_are_told_apart_from_an_outage(rig: ServerRig) -> None:
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(BlobForbidden):
            async with rig.open_as_stranger():
                pass


@on_servers
async def test_a_frozen_server_is_an_error_in_bounded_time(rig: ServerRig, tmp_path: Path) -> None:
    async with rig.open(PATIENCE_S) as store:
        await store.put("lost/old", b"old", "text/plain")
        freeze(rig.pid)
        try:
            async with asyncio.timeout(DEADLINE_S):
                for call in every_call(store, tmp_path).values():
                    with pytest.raises(BlobUnavailable):
                        await call()
        finally:
            thaw(rig.pid)
        assert is_empty(tmp_path)
        # It was a pause, and nothing is lost by it (the delete may have arrived after all).
        async with asyncio.timeout(DEADLINE_S):
            await put_again(store)


async def put_again(store: BlobStore) -> None:
    while True:
        try:
            await store.put("lost/after", b"after", "text/plain")
        except BlobUnavailable:
            continue
        assert await store.get("lost/after") == b"after"
        return


@pytest.mark.parametrize("kind", START)
async def test_a_server_that_died_is_an_error_in_bounded_time(kind: str, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "files").mkdir()
    async with START[kind](tmp_path / "server") as server, server.open(PATIENCE_S) as store:
        await store.put("lost/old", b"old", "text/plain")
        await server.kill()
        async with asyncio.timeout(DEADLINE_S):
            for call in every_call(store, tmp_path / "files").values():
                with pytest.raises(BlobUnavailable):
                    await call()
    assert is_empty(tmp_path / "files")
