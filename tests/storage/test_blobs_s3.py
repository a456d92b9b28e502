"""What the S3 store promises beyond the port: every odd answer has one meaning, and a moving file is noticed."""

import asyncio
import pickle
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_asyncio
from blob_servers import ACCESS_KEY, S3Rig, some_bytes, start_juicefs
from minio import Minio
from nats.aio.client import Client

from headrace_contracts.errors import BlobError, BlobForbidden, BlobKeyRefused, BlobMismatch, BlobUnavailable
from headrace_contracts.settings import S3Settings, Settings
from headrace_storage.blobs import JetStreamBlobs, open_blobs
from headrace_storage.blobs.landing import Landing
from headrace_storage.blobs.s3 import S3Blobs, _Upload

pytestmark = pytest.mark.slow

MB = 1024 * 1024
DEADLINE_S = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[S3Rig]:
    async with start_juicefs(tmp_path_factory.mktemp("juicefs")) as server:
        yield server


@contextmanager
def answering(status: int, content_type: str, body: bytes) -> Iterator[str]:
    """A web server that has every bucket, and says the same to every other request; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(200 if self.command == "HEAD" else status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = answer  # noqa: N815 - http.server's names

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def s3_error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "content_type", "body", "expected"),
    [
        (503, "application/xml", s3_error("SlowDown"), BlobUnavailable),
        (500, "application/xml", s3_error("InternalError"), BlobUnavailable),
        (507, "text/html", b"<h1>full</h1>", BlobUnavailable),
        (502, "text/html", b"<h1>Bad Gateway</h1>", BlobUnavailable),
        (404, "text/html", b"<h1>no such page</h1>", BlobUnavailable),
        (404, "application/xml", s3_error("NoSuchBucket"), BlobUnavailable),
        (403, "application/xml", s3_error("SignatureDoesNotMatch"), BlobForbidden),
        (403, "application/xml", s3_error("InvalidAccessKeyId"), BlobForbidden),
        (403, "text/html", b"<h1>Forbidden</h1>", BlobForbidden),
        (400, "application/xml", s3_error("EntityTooLarge"), BlobError),
    ],
)
async def test_what_an_answer_means(status: int, content_type: str, body: bytes, expected: type[BlobError]) -> None:
    with answering(status, content_type, body) as url:
        async with S3Blobs(S3Settings(url, "key", "secret")) as store:
            with pytest.raises(BlobError) as caught:
                await store.get("k")
    assert type(caught.value) is expected


async def test_a_key_that_is_refused_is_named_with_its_server(rig: S3Rig) -> None:
    with pytest.raises(BlobKeyRefused) as caught:
        async with rig.open_as_stranger():
            pass
    said = str(caught.value)
    assert f"the S3 server at {rig.url} refuses the key {ACCESS_KEY!r}" in said
    assert "wrong" not in said
    assert str(pickle.loads(pickle.dumps(caught.value))) == said


@pytest.mark.parametrize("size", [MB, 40 * MB], ids=["one part", "several parts"])
@pytest.mark.parametrize("change", ["other bytes", "truncated"])
async def test_a_file_that_changes_during_its_upload_replaces_nothing(
    rig: S3Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, change: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(some_bytes(size))
    real_put, changed = Minio.put_object, threading.Event()

    def put_object(client: Minio, *args: object, **options: object) -> object:
        with source.open("r+b") as file:
            if change == "truncated":
                file.truncate(size - 1)
            else:
                file.seek(size - 1)
                file.write(bytes([source.read_bytes()[-1] ^ 1]))
        changed.set()
        return real_put(client, *args, **options)

    async with rig.open() as store:
        await store.put("k", b"old", "text/plain")
        with monkeypatch.context() as patch:
            patch.setattr(Minio, "put_object", put_object)
            with pytest.raises(BlobMismatch, match="changed"):
                await store.put("k", source, "text/plain")
        assert changed.is_set()
        assert await store.get("k") == b"old"


class Gate:
    """Holds a thread at its first passage until it is opened, and counts passages."""

    def __init__(self) -> None:
        self.arrived, self.passages = asyncio.Event(), 0
        self._open, self._loop = threading.Event(), asyncio.get_running_loop()

    def before(self, method: Callable[..., object]) -> Callable[..., object]:
        """`method`, behind the gate."""

        def gated(*args: object) -> object:
            self.passages += 1
            self._loop.call_soon_threadsafe(self.arrived.set)
            assert self._open.wait(DEADLINE_S)
            return method(*args)

        return gated

    def open(self) -> None:
        self._open.set()


async def test_a_cancelled_put_stops_at_its_next_part(
    rig: S3Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, gate = tmp_path / "source", Gate()
    source.write_bytes(some_bytes(40 * MB))
    monkeypatch.setattr(_Upload, "read", gate.before(_Upload.read))
    async with rig.open() as store:
        put = asyncio.create_task(store.put("canceled", source, "text/plain"))
        await gate.arrived.wait()
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        gate.open()
    assert gate.passages == 1
    async with rig.open() as store:
        assert [info async for info in store.list("canceled")] == []


async def test_a_cancelled_download_stops_at_its_next_piece(
    rig: S3Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    async with rig.open() as store:
        info = await store.put("large", some_bytes(8 * MB), "text/plain")
        monkeypatch.setattr(Landing, "write", gate.before(Landing.write))
        promise = {"size_bytes": info.size_bytes, "sha256": info.sha256}
        get = asyncio.create_task(store.get_to("large", tmp_path / "target", **promise))
        await gate.arrived.wait()
        get.cancel()
        with pytest.raises(asyncio.CancelledError):
            await get
        gate.open()
    assert gate.passages == 1
    assert list(tmp_path.iterdir()) == []


async def test_a_failed_request_is_not_repeated_behind_the_callers_back() -> None:
    requests: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readuntil(b"\r\n\r\n")).split()[0])
        if requests[-1] == b"HEAD":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with S3Blobs(S3Settings(f"http://127.0.0.1:{port}", "key", "secret"), timeout_s=5) as store:
            with pytest.raises(BlobUnavailable):
                await store.get("k")
    assert requests == [b"HEAD", b"GET"]


async def test_no_threads_or_connections_stay_behind(rig: S3Rig) -> None:
    before = set(threading.enumerate())
    async with rig.open() as store:
        await asyncio.gather(*(store.put(f"many/{n}", some_bytes(1000), "text/plain") for n in range(20)))
        assert set(threading.enumerate()) > before
    # asyncio's own threads are kept for the next call.
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not any(name.startswith("headrace-s3") for name in left)


async def test_a_bucket_that_cannot_be_reached_is_an_error_on_entry() -> None:
    with pytest.raises(BlobUnavailable):
        async with S3Blobs(S3Settings("http://127.0.0.1:1", "key", "secret"), timeout_s=1):
            pass


async def test_the_settings_choose_the_store() -> None:
    nc = Client()
    assert isinstance(open_blobs(Settings(), nc), JetStreamBlobs)
    assert isinstance(open_blobs(Settings(s3=S3Settings("http://127.0.0.1:1", "key", "secret")), nc), S3Blobs)


async def test_the_s3_client_is_imported_only_where_s3_is_used() -> None:
    program = "import sys, headrace_storage.blobs; print(sorted({'minio', 'urllib3'} & set(sys.modules)))"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
